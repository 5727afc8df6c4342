"""Running policies and rules on the same loads, measuring them, and comparing them."""
