"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const touch = matchMedia("(pointer: coarse)");
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: touch.matches ? false : "hover",
    // Named one by one: plotly's own choice has a button that sends the chart to its makers.
    modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
    plotlyServerURL: "",
  };
  const element = (id) => document.getElementById(id);
  const buttons = (id) => [...element(id).querySelectorAll("button")];
  const format = (value, digits) => value.toLocaleString("en-US", { maximumFractionDigits: digits });

  // A chart with the page's colours in place of their names, and with room for a phone.
  function prepared(chart) {
    const style = getComputedStyle(document.documentElement);
    const colour = /^var\((--[a-z-]+)\)$/;
    const text = JSON.stringify({ data: chart.data, layout: chart.layout });
    const figure = JSON.parse(text, (key, value) => {
      const name = typeof value === "string" && colour.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    });
    if (narrow.matches) {
      figure.layout.margin = { ...figure.layout.margin, l: 44, r: 6 };
      figure.layout.font.size = 11;
      Object.assign(figure.layout.legend, { entrywidth: 0.48, entrywidthmode: "fraction" });
    }
    // A finger that moves over a chart scrolls the page; the buttons zoom and move.
    if (touch.matches) figure.layout.dragmode = false;
    return figure;
  }

  function draw(id) {
    const { data, layout } = prepared(charts[id]);
    return Plotly.react(element(id), data, layout, config);
  }

  // Load against capacity: moving through the days.
  function setUpLoad() {
    const chart = element("load");
    const { days, opens } = charts.load;
    // Plotly writes dates without an offset and means UTC.
    const time = (text) => Date.parse(text.replace(" ", "T").padEnd(19, ":00").slice(0, 23) + "Z");
    const start = time(days[0].from);
    const end = time(days.at(-1).to);
    const range = () => chart.layout.xaxis.range.map((value) => (typeof value === "number" ? value : time(value)));

    function show(from, to) {
      const length = Math.min(to - from, end - start);
      const first = Math.max(start, Math.min(from, end - length));
      const limits = [first, first + length].map((value) => new Date(value).toISOString().slice(0, 19));
      return Plotly.relayout(chart, { "xaxis.range": limits });
    }

    function update() {
      const [from, to] = range();
      const seen = days.filter((day) => time(day.from) < to - 1000 && time(day.to) > from + 1000);
      if (!seen.length) return;
      const top = 1.08 * Math.max(1, ...seen.map((day) => day.top));
      if (chart.layout.yaxis.range[1] !== top) Plotly.relayout(chart, { "yaxis.range": [0, top] });
      const title = seen.length > 1 ? `${seen[0].label} to ${seen.at(-1).label}` : seen[0].label;
      const sum = (name, index) => seen.reduce((total, day) => total + day[name][index], 0);
      element("load-title").textContent = title[0].toUpperCase() + title.slice(1);
      for (const index of seen[0].machineHours.keys()) {
        const figures = [
          `${format(sum("machineHours", index), 0)} machine-hours`,
          `${format(sum("violationMinutes", index), 1)} violation min`,
        ];
        element(`load-figures-${index}`).replaceChildren(
          ...figures.map((text) => Object.assign(document.createElement("span"), { textContent: text }))
        );
      }
      for (const button of buttons("load-controls")) {
        const { move, hours } = button.dataset;
        if (move) button.disabled = move < 0 ? from <= start : to >= end;
        if (hours) {
          const length = Number(hours) ? Number(hours) * 3_600_000 : end - start;
          button.setAttribute("aria-pressed", String(Math.abs(to - from - length) < 60_000));
        }
      }
    }

    for (const button of buttons("load-controls")) {
      button.addEventListener("click", () => {
        const [from, to] = range();
        const { move, hours } = button.dataset;
        if (move) return show(from + move * (to - from), to + move * (to - from));
        if (hours === undefined) return show(time(days[opens].from), time(days[opens].to));
        if (hours === "0") return show(start, end);
        const middle = (from + to) / 2;
        const length = Number(hours) * 3_600_000;
        // A day is shown from midnight to midnight.
        const first = hours === "24" ? Math.floor(middle / length) * length : middle - length / 2;
        return show(first, first + length);
      });
    }
    chart.on("plotly_relayout", update);
    update();
  }

  // Where violations happened: choosing the policy.
  function setUpViolations() {
    buttons("violations-controls").forEach((button, index) => button.addEventListener("click", () => choose(index)));
    choose(0);
  }

  function choose(index) {
    const choice = charts.violations.choices[index];
    charts.violations.data[0].z = choice.z;
    draw("violations");
    element("violations-reading").textContent = `${choice.title}: ${choice.text}.`;
    buttons("violations-controls").forEach((button, position) =>
      button.setAttribute("aria-pressed", String(position === index))
    );
  }

  // Cost against violations: as many labels as fit, the important ones first.
  function label() {
    const chart = element("costs");
    const { xaxis, yaxis } = chart._fullLayout;
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const points = chart.data.flatMap((trace, curve) =>
      trace.x.map((x, index) => ({
        curve,
        index,
        x: xaxis.d2p(x),
        y: yaxis.d2p(trace.y[index]),
        text: trace.hovertext[index],
        importance: trace.meta[index],
      }))
    );
    const taken = points.map(({ x, y }) => ({ left: x - 8, right: x + 8, top: y - 8, bottom: y + 8 }));
    const free = (box) =>
      box.left > 0 && box.right < xaxis._length && box.top > 0 && box.bottom < yaxis._length &&
      taken.every((other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);
    const text = chart.data.map((trace) => trace.x.map(() => ""));
    const position = chart.data.map((trace) => trace.x.map(() => "middle right"));
    const decoder = document.createElement("textarea");
    for (const point of points.sort((a, b) => a.importance - b.importance)) {
      decoder.innerHTML = point.text;
      const width = pen.measureText(decoder.value).width;
      const { x, y } = point;
      const beside = { left: [x - 12 - width, x - 9], center: [x - width / 2, x + width / 2], right: [x + 9, x + 12 + width] };
      const level = { top: [y - 26, y - 9], middle: [y - 8, y + 8], bottom: [y + 9, y + 26] };
      const places = ["middle right", "middle left", "top center", "bottom center", "top right", "bottom right", "top left", "bottom left"];
      const box = (name) => {
        const [vertical, horizontal] = name.split(" ");
        const [[left, right], [top, bottom]] = [beside[horizontal], level[vertical]];
        return { left, right, top, bottom };
      };
      const place = places.find((name) => free(box(name)));
      if (!place) continue;
      taken.push(box(place));
      text[point.curve][point.index] = point.text;
      position[point.curve][point.index] = place;
    }
    Plotly.restyle(chart, { text, textposition: position });
  }

  // The table: sorting by a click on a column's title.
  function setUpTable() {
    const titles = [...document.querySelectorAll(".policies thead th")];
    const body = document.querySelector(".policies tbody");
    titles.forEach((title, column) =>
      title.querySelector("button")?.addEventListener("click", () => {
        const ascending = title.getAttribute("aria-sort") !== "ascending";
        titles.forEach((other) => other.removeAttribute("aria-sort"));
        title.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.value;
        // Rows without a value come last.
        const order = (a, b) => (value(a) === "") - (value(b) === "") || (ascending ? 1 : -1) * (value(a) - value(b));
        body.append(...[...body.rows].sort(order));
      })
    );
  }

  function drawAll() {
    Object.keys(charts).forEach(draw);
    label();
  }

  const { days, opens } = charts.load;
  charts.load.layout.xaxis.range = [days[opens].from, days[opens].to];
  drawAll();
  setUpViolations();
  setUpLoad();
  setUpTable();
  element("costs").on("plotly_relayout", label);
  for (const media of [dark, narrow]) media.addEventListener("change", drawAll);
})();
