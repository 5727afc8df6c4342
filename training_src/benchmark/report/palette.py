"""Colours by what they stand for, the same in the page, its charts and the pictures; told apart by the colour-blind."""

LIGHT = {
    "page": "#f5f6f8",
    "surface": "#ffffff",
    "ink": "#1b2230",
    "muted": "#596273",
    "line": "#e2e6eb",
    "candidate": "#0b7285",
    "candidate-tint": "#e6f3f5",
    "rule": "#e8590c",
    "incumbent": "#3b8fd9",
    "optimum": "#7048e8",
    "load": "#64748b",
    "load-fill": "rgba(100, 116, 139, 0.2)",
    "violation": "#c92a2a",
    "heat-none": "#f0f2f5",
    "heat-few": "#fcc2b8",
    "heat-many": "#a61010",
}

DARK = {
    "page": "#12161d",
    "surface": "#1a2029",
    "ink": "#e8ecf2",
    "muted": "#a0abba",
    "line": "#313a47",
    "candidate": "#3bc0d4",
    "candidate-tint": "#17343c",
    "rule": "#ff8a4c",
    "incumbent": "#74b8f5",
    "optimum": "#a98bff",
    "load": "#94a3b8",
    "load-fill": "rgba(148, 163, 184, 0.22)",
    "violation": "#ff6b6b",
    "heat-none": "#242c37",
    "heat-few": "#7a2f33",
    "heat-many": "#ff8080",
}
