(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const made = (tag, text = "", properties = {}) => Object.assign(document.createElement(tag), { textContent: text }, properties);
  document.documentElement.classList.add("scripted");

  // Arms are switched on and off by one style sheet.
  const sheet = document.getElementById("hidden-arms");
  const hidden = new Set(all('.chip[aria-pressed="false"]').map((chip) => chip.dataset.switch));
  const showArms = () => {
    sheet.textContent = [...hidden]
      .map((arm) => `figure[data-arm="${arm}"], figure [data-arm="${arm}"] { display: none; }`)
      .join("\n");
    for (const chip of all(".chip")) chip.setAttribute("aria-pressed", String(!hidden.has(chip.dataset.switch)));
  };
  for (const chip of all(".chip")) {
    chip.addEventListener("click", () => {
      const arm = chip.dataset.switch;
      if (!hidden.delete(arm)) hidden.add(arm);
      showArms();
    });
  }
  for (const list of all(".chips")) {
    if (list.children.length < 5) continue;
    for (const [words, keep] of [["all", true], ["none", false]]) {
      const item = made("li");
      const button = made("button", words, { type: "button", className: "chip every" });
      button.removeAttribute("aria-pressed");
      button.addEventListener("click", () => {
        for (const chip of all(".chip[data-switch]", list)) {
          if (keep) hidden.delete(chip.dataset.switch);
          else hidden.add(chip.dataset.switch);
        }
        showArms();
      });
      item.append(button);
      list.append(item);
    }
  }

  // Values under the pointer.
  const tip = document.getElementById("tip");
  const showTip = (text, x, y) => {
    tip.textContent = text;
    tip.style.display = "block";
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
    tip.style.top = `${Math.max(4, y + 14 + box.height > innerHeight ? y - box.height - 10 : y + 14)}px`;
  };
  const hideTip = () => { tip.style.display = "none"; };
  for (const title of all("svg title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest?.("[data-tip]");
    if (mark) showTip(mark.dataset.tip, event.clientX, event.clientY);
  });
  document.addEventListener("pointerout", (event) => { if (event.target.closest?.("[data-tip]")) hideTip(); });
  addEventListener("scroll", hideTip, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  const short = (value) => {
    const size = Math.abs(value);
    if (size && (size < 0.001 || size >= 100000)) return value.toExponential(2);
    return Number(value.toPrecision(3)).toString();
  };
  const numbers = (text) => text.split(" ").map(Number);
  const plot = (svg) => {
    const [left, top, right, bottom] = numbers(svg.dataset.area);
    const at = (name, share) => {
      const [low, high, log] = numbers(svg.dataset[name]);
      return log ? low * (high / low) ** share : low + share * (high - low);
    };
    const lines = all("g[data-arm]", svg).map((group) => ({
      group,
      points: all("polyline", group).flatMap((line) => line.getAttribute("points").split(" ").map((point) => point.split(",").map(Number))),
    }));
    const guide = document.createElementNS("http://www.w3.org/2000/svg", "line");
    guide.setAttribute("class", "guide");
    let place = null;
    const xs = () => [...new Set(lines.filter(({ group }) => getComputedStyle(group).display !== "none")
      .flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
    const show = (x, clientX, clientY) => {
      const near = [];
      for (const { group, points } of lines) {
        if (getComputedStyle(group).display === "none") continue;
        const point = points.find(([px]) => Math.abs(px - x) < 0.6);
        if (point) near.push([group.dataset.name, at("y", (bottom - point[1]) / (bottom - top))]);
      }
      if (!near.length) return;
      near.sort((a, b) => b[1] - a[1]);
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", top], ["y2", bottom]]) guide.setAttribute(name, value);
      svg.append(guide);
      place = x;
      const rows = near.slice(0, 14).map(([name, value]) => `${short(value)}${svg.dataset.unit}  ${name}`);
      if (near.length > 14) rows.push(`and ${near.length - 14} more`);
      showTip([`at ${short(at("x", (x - left) / (right - left)))}`, ...rows].join("\n"), clientX, clientY);
    };
    const leave = () => { guide.remove(); hideTip(); };
    svg.addEventListener("pointermove", (event) => {
      if (event.target.closest("[data-tip]")) return;
      const inside = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const places = xs();
      if (!places.length || inside.x < left - 4 || inside.x > right + 4) return leave();
      show(places.reduce((a, b) => (Math.abs(b - inside.x) < Math.abs(a - inside.x) ? b : a)), event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", leave);
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      event.preventDefault();
      const places = xs();
      if (!places.length) return;
      const now = place === null ? -1 : places.findIndex((x) => Math.abs(x - place) < 0.6);
      const next = Math.max(0, Math.min(places.length - 1, now + (event.key === "ArrowRight" ? 1 : -1)));
      const box = svg.getBoundingClientRect();
      show(places[next], box.left + (places[next] / svg.viewBox.baseVal.width) * box.width, box.top + 20);
    });
  };
  all("svg[data-area]").forEach(plot);

  // Tables: sorted by a click on a heading, searched by words.
  const value = (cell) => {
    const text = (cell?.firstChild?.textContent ?? "").trim().replace(/−/g, "-").replace(/,/g, "");
    const number = parseFloat(text.replace(/^[▲▼ ]+/, "").replace(/^</, ""));
    return Number.isNaN(number) || /^[a-z]/i.test(text) ? text.toLowerCase() : number;
  };
  for (const table of all("table[data-sort]")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    all("thead th", table).forEach((heading, column) => {
      const button = made("button", heading.textContent, { type: "button", className: "sort" });
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const order = { ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")] ?? "ascending";
        for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
        const sign = order === "descending" ? -1 : 1;
        const rows = [...original];
        if (order !== "none") {
          heading.setAttribute("aria-sort", order);
          const empty = (cell) => cell === "" || cell === "–";
          rows.sort((a, b) => {
            const [x, y] = [value(a.cells[column]), value(b.cells[column])];
            if (empty(x) || empty(y)) return empty(x) - empty(y);
            if (typeof x === typeof y) return sign * (x < y ? -1 : x > y ? 1 : 0);
            return typeof x === "number" ? -1 : 1;
          });
        }
        body.append(...rows);
      });
    });
  }
  for (const part of all("[data-search]")) {
    const box = part.tagName === "TABLE" ? part.closest(".scroll") : part.querySelector("details");
    if (!box) continue;
    const label = made("label", `Search ${part.dataset.search}:`, { className: "find" });
    const input = made("input", "", { type: "search" });
    const count = made("span", "", { className: "count" });
    count.setAttribute("aria-live", "polite");
    label.append(input, count);
    box.before(label);
    const rows = all("tbody tr", part);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const folded = all("details", part);
    const states = folded.map((fold) => fold.open);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let kept = 0;
      rows.forEach((row, place) => {
        row.hidden = !words.every((word) => texts[place].includes(word));
        kept += !row.hidden;
      });
      folded.forEach((fold, place) => {
        const some = all("tbody tr", fold).some((row) => !row.hidden);
        fold.open = words.length ? some : states[place];
        fold.hidden = words.length > 0 && !some;
      });
      count.textContent = words.length ? ` ${kept} of ${rows.length}` : "";
    });
  }

  // A figure is saved with the colors that it has on a light page.
  const PROPERTIES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "stroke-linecap", "opacity",
    "font-size", "font-family", "font-weight", "paint-order", "display"];
  const painted = (svg) => {
    const copy = svg.cloneNode(true);
    const originals = [svg, ...all("*", svg)];
    [copy, ...all("*", copy)].forEach((node, place) => {
      const style = getComputedStyle(originals[place]);
      for (const name of PROPERTIES) {
        const text = style.getPropertyValue(name);
        if (text && (name !== "display" || text === "none")) node.setAttribute(name, text);
      }
      for (const name of ["class", "data-tip", "tabindex"]) node.removeAttribute(name);
    });
    return copy;
  };
  const document_of = (svg, width, height) => {
    svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, text] of [["width", "100%"], ["height", "100%"], ["fill", "#ffffff"]]) paper.setAttribute(name, text);
    svg.prepend(paper);
    return new XMLSerializer().serializeToString(svg);
  };
  const word = (text, x, y, bold, anchor) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", "text");
    const parts = { x, y, fill: "#1a1f26", "font-size": 12, "font-family": "sans-serif", "font-weight": bold ? 600 : 400, "text-anchor": anchor };
    for (const [name, content] of Object.entries(parts)) node.setAttribute(name, content);
    node.textContent = text;
    return node;
  };
  const forestDrawing = (figure) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    let y = 4;
    for (const entry of all(".entry", figure)) {
      const row = painted(entry.querySelector("svg"));
      const height = Number(row.getAttribute("height"));
      for (const [name, content] of [["x", 210], ["y", y], ["width", 470], ["overflow", "visible"]]) row.setAttribute(name, content);
      svg.append(row);
      const name = entry.querySelector(".name");
      if (name) {
        svg.append(word(name.firstChild.textContent.trim(), 6, y + 22, true, "start"));
        svg.append(word(entry.querySelector(".numbers").firstChild.textContent.trim(), 894, y + 22, false, "end"));
      }
      y += height;
    }
    svg.setAttribute("viewBox", `0 0 900 ${y + 6}`);
    return document_of(svg, 900, y + 6);
  };
  const drawing = (figure) => {
    document.documentElement.classList.add("light");
    try {
      if (figure.dataset.figure === "forest") return forestDrawing(figure);
      const svg = figure.querySelector("svg[viewBox]");
      const { width, height } = svg.viewBox.baseVal;
      return document_of(painted(svg), width, height);
    } finally {
      document.documentElement.classList.remove("light");
    }
  };
  // Three pixels to one, which is 300 to the inch in a column of three inches; browsers draw no side beyond 16,384.
  const pixels = async (text) => {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await image.decode();
    const scale = Math.min(3, 16000 / Math.max(image.width, image.height));
    const canvas = made("canvas", "", { width: Math.round(scale * image.width), height: Math.round(scale * image.height) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  };
  const save = (blob, name) => {
    const link = made("a", "", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  for (const figure of all("[data-figure]")) {
    const place = figure.querySelector(".saves");
    if (!place) continue;
    const link = place.querySelector("a[download]");
    const name = link.download.replace(/\.csv$/, "");
    const svg = () => new Blob([drawing(figure)], { type: "image/svg+xml" });
    for (const [kind, make] of [["SVG", svg], ["PNG", () => pixels(drawing(figure))]]) {
      const button = made("button", kind, { type: "button" });
      button.setAttribute("aria-label", link.getAttribute("aria-label").replace(/^CSV/, kind));
      button.addEventListener("click", async () => save(await make(), `${name}.${kind.toLowerCase()}`));
      place.append(button);
    }
  }

  addEventListener("beforeprint", () => { for (const fold of all("details")) fold.open = true; });
})();
