"use strict";
// The page of `pathpipe view`: a list of slides, one of them in OpenSeadragon, and layers painted over it.
// All places are level-0 pixels. Everything comes from the server that served the page; nothing is stored.
(() => {
  const LAYERS = ["heat", "tissue", "tiles", "truth"];  // keys 1 to 4
  const OUTLINE_PX = 7;  // tiles smaller than this on the screen are shaded, not outlined
  const $ = id => document.getElementById(id);
  const asked = new URLSearchParams(location.search);
  const state = {
    run: null, slide: null, facts: null, listed: [], version: 0,
    on: new Set((asked.get("layers") ?? "heat,tissue").split(",").filter(name => LAYERS.includes(name))),
    model: asked.get("model"), score: asked.get("score"), scale: asked.get("scale") === "raw" ? "raw" : "rank",
    data: {}, at: asked.get("at"), pointer: null,
  };
  const motion = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.4;
  const viewer = OpenSeadragon({
    element: $("viewer"), drawer: "canvas", showNavigationControl: false, showNavigator: true, navigatorPosition: "TOP_RIGHT",
    navigatorSizeRatio: 0.14, navigatorAutoFade: false, animationTime: motion, springStiffness: 9, maxZoomPixelRatio: 8, visibilityRatio: 0.3,
    minZoomImageRatio: 0.7, imageLoaderLimit: 6, timeout: 120000, maxImageCacheCount: 300, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  });
  if (viewer.innerTracker) { viewer.innerTracker.keyHandler = null; viewer.innerTracker.keyDownHandler = null; }  // keys are this page's

  // ---- asking -------------------------------------------------------------------------------------------------

  const address = (...parts) => parts.map(encodeURIComponent).join("/");
  async function ask(...parts) {
    let answer;
    try { answer = await fetch(address(...parts)); }
    catch { throw { what: "the server doesn't answer", hint: "is `pathpipe view` still running?" }; }
    const json = (answer.headers.get("Content-Type") || "").includes("json");
    if (answer.ok) return answer.json();
    throw json ? await answer.json() : { what: (await answer.text()).trim(), hint: "" };
  }
  const bytes = text => Uint8Array.from(atob(text), one => one.charCodeAt(0));

  // ---- the list -----------------------------------------------------------------------------------------------

  function make(tag, classes, text) {
    const node = document.createElement(tag);
    if (classes) node.className = classes;
    if (text !== undefined) node.textContent = text;
    return node;
  }
  const firstModel = slide => Object.keys(slide.said)[0];
  function verdict(right) { return right === true ? "right" : right === false ? "wrong" : ""; }
  const MARK = { right: "✔ ", wrong: "✘ ", "": "" };

  function listEntry(slide) {
    const item = make("li"), button = make("button"), thumb = make("span", "thumb"), words = make("span");
    const picture = make("img"), model = firstModel(slide), said = model && slide.said[model];
    picture.loading = "lazy"; picture.alt = ""; picture.src = address("thumb", slide.id);
    picture.addEventListener("error", () => { thumb.replaceChildren(document.createTextNode("no picture")); });
    thumb.append(picture);
    const labels = Object.values(slide.labels).filter(Boolean);
    words.append(make("span", "name", slide.id), make("span", "about", [slide.patient, ...labels].join(" · ")));
    const right = said ? verdict(said.right) : "";
    if (slide.trouble) words.append(make("span", "about wrong", slide.trouble));
    else if (said?.predicted) words.append(make("span", `about ${right}`, `${MARK[right]}predicted ${said.predicted}`));
    button.type = "button"; button.title = slide.trouble || slide.id;
    button.append(thumb, words);
    button.addEventListener("click", () => { show(slide.id); $("list").classList.remove("open"); });
    item.append(button);
    const verdicts = Object.values(slide.said).map(one => `${verdict(one.right)} ${one.predicted ?? ""}`);
    const text = [slide.id, slide.patient, slide.site, ...labels, ...verdicts, slide.trouble].join(" ").toLowerCase();
    return { slide, item, button, text };
  }

  function filter() {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    state.listed = [];
    for (const entry of state.entries) {
      const wanted = words.every(word => entry.text.includes(word));
      entry.item.hidden = !wanted;
      if (wanted) state.listed.push(entry);
    }
    const all = state.entries.length;
    $("shown").value = words.length ? `${state.listed.length} of ${all} slides` : `${all} ${all === 1 ? "slide" : "slides"}`;
    turnButtons();
  }
  const place = () => state.listed.findIndex(entry => entry.slide.id === state.slide);
  function turnButtons() {
    const at = place();
    $("previous").disabled = at === 0 || !state.listed.length;
    $("next").disabled = at === state.listed.length - 1 || !state.listed.length;
  }
  function step(by) {
    const at = place();
    const to = at < 0 ? 0 : at + by;  // from a slide that the filter hides, to the first that is listed
    if (state.listed[to]) show(state.listed[to].slide.id);
  }

  // ---- one slide ----------------------------------------------------------------------------------------------

  async function show(id) {
    const turn = ++state.version;  // answers to what is no longer wanted are dropped
    Object.assign(state, { slide: id, facts: null, data: {} });
    for (const entry of state.entries) entry.button.setAttribute("aria-current", entry.slide.id === id);
    const entry = state.entries.find(one => one.slide.id === id);
    entry?.button.scrollIntoView({ block: "nearest" });
    turnButtons();
    $("title").textContent = id; document.title = `${id} · pathpipe view`;
    $("chips").replaceChildren();
    say(null); viewer.close(); sides(); paint();
    let facts;
    try { facts = await ask("slide", id); }
    catch (problem) {
      if (turn !== state.version) return;
      say(problem); sides(); remember();
      return;
    }
    if (turn !== state.version) return;
    state.facts = facts;
    $("chips").replaceChildren(...chips(entry?.slide));
    viewer.addOnceHandler("open", () => turn === state.version && arrive());
    viewer.open({
      width: facts.size0[0], height: facts.size0[1], tileSize: facts.tile_px, tileOverlap: facts.overlap_px,
      minLevel: Math.min(8, facts.top), maxLevel: facts.top,
      getTileUrl: (level, x, y) => `${address("tile", id, level, `${x}_${y}`)}?v=${facts.version}`,
    });
    sides(); remember();
    for (const layer of LAYERS) if (state.on.has(layer)) load(layer);
  }

  function arrive() {
    const place = (state.at || "").split(",").map(Number);
    state.at = null;  // an address names one place of one slide
    if (place.length === 3 && place.every(Number.isFinite)) {
      viewer.viewport.zoomTo(zoomOf(1 / place[2]), null, true);
      viewer.viewport.panTo(item().imageToViewportCoordinates(place[0], place[1]), true);
    } else home(true);
    paint();
  }
  const item = () => viewer.world.getItemAt(0);
  const zoomOf = screenPerPixel => item().imageToViewportZoom(screenPerPixel);
  function home(now) {
    const box = state.facts?.bounds;
    if (box && item()) viewer.viewport.fitBounds(item().imageToViewportRectangle(...box), now);
    else viewer.viewport?.goHome(now);
  }
  function say(problem, strip = false) {
    const box = $("message");
    box.hidden = !problem; box.className = strip ? "strip" : "";
    box.replaceChildren();
    if (problem) box.append(make("b", "", problem.what), ...(problem.hint ? [make("p", "", problem.hint)] : []));
  }
  viewer.addHandler("tile-load-failed", async event => {
    const turn = state.version, parts = new URL(event.tile.getUrl(), location.href).pathname.split("/").slice(2).map(decodeURIComponent);
    try { await ask(...parts); }  // a picture can't say why it failed
    catch (problem) { if (turn === state.version && problem.what && parts[1] === state.slide) say(problem, true); }
  });

  // ---- layers -------------------------------------------------------------------------------------------------

  const layerBox = name => document.querySelector(`[data-layer=${name}]`);
  const there = name => {
    const layers = state.facts?.layers;
    return !!layers && (name === "heat" ? Object.keys(layers.heat).length > 0 : layers[name]);
  };
  function modelNow() {
    const heat = state.facts?.layers.heat ?? {}, names = Object.keys(heat);
    const model = names.includes(state.model) ? state.model : names[0];
    const scores = heat[model]?.scores ?? [];
    const score = scores.includes(state.score) ? state.score : scores[0];
    return { model, names, scores, score, kind: scores.length > 1 ? score : heat[model]?.kind };
  }
  function layerParts(name) {
    const { model, score } = modelNow();
    return name === "heat" ? ["layer", state.slide, "heat", model, score] : ["layer", state.slide, name];
  }
  async function load(name) {
    if (!there(name) || state.data[name]) return;
    const turn = state.version, parts = layerParts(name), waiting = { waiting: true };
    state.data[name] = waiting; sides();
    let found;
    try { found = PREPARE[name](await ask(...parts)); }
    catch (problem) { found = { problem: problem.what ?? String(problem) }; }
    if (turn !== state.version || state.data[name] !== waiting) return;  // another slide or model by now
    state.data[name] = found;
    sides(); paint();
  }
  function toggle(name, on = !state.on.has(name)) {
    if (on) state.on.add(name); else state.on.delete(name);
    load(name); sides(); remember(); paint();
  }
  function reheat() { delete state.data.heat; if (state.on.has("heat")) load("heat"); sides(); remember(); paint(); }

  function outlines({ groups }) {
    for (const group of groups) {
      group.path = new Path2D();
      for (const polygon of group.polygons) for (const ring of polygon) {
        for (let i = 0; i < ring.length; i += 2) group.path[i ? "lineTo" : "moveTo"](ring[i], ring[i + 1]);
        group.path.closePath();
      }
    }
    return { groups };
  }
  function tiles(found) {
    const { xy0, side0: [w, h], count } = found;
    if (!count) return found;
    let left = Infinity, top = Infinity, right = 0, bottom = 0;
    for (let i = 0; i < xy0.length; i += 2) {
      left = Math.min(left, xy0[i]); right = Math.max(right, xy0[i] + w);
      top = Math.min(top, xy0[i + 1]); bottom = Math.max(bottom, xy0[i + 1] + h);
    }
    const scale = Math.min(1, 2048 / Math.max(right - left, bottom - top));
    const shade = make("canvas"); // all tiles drawn once, for when they are too small to be outlined
    shade.width = Math.ceil((right - left) * scale); shade.height = Math.ceil((bottom - top) * scale);
    const pen = shade.getContext("2d"), inset = Math.max(0, Math.min(0.5, (w * scale - 2) / 4));
    pen.fillStyle = "#2f6fff";
    for (let i = 0; i < xy0.length; i += 2) {
      pen.fillRect((xy0[i] - left) * scale + inset, (xy0[i + 1] - top) * scale + inset, w * scale - 2 * inset, h * scale - 2 * inset);
    }
    return { ...found, xy0: Int32Array.from(xy0), shade, box: [left, top, shade.width / scale, shade.height / scale] };
  }
  function heat(found) {
    const values = new Float32Array(bytes(found.values).buffer);
    const made = { ...found, ranks: bytes(found.ranks), values, palette: bytes(found.palette), canvas: make("canvas") };
    [made.canvas.width, made.canvas.height] = found.size;
    colour(made);
    return made;
  }
  function colour(made) {
    const pen = made.canvas.getContext("2d"), image = pen.createImageData(...made.size), span = made.high - made.low || 1;
    for (let i = 0; i < made.ranks.length; i++) {
      if (!made.ranks[i]) continue;
      const share = state.scale === "raw" ? (made.values[i] - made.low) / span : (made.ranks[i] - 1) / 254;
      const at = 3 * Math.round(255 * Math.min(1, Math.max(0, share)));
      image.data.set([made.palette[at], made.palette[at + 1], made.palette[at + 2], 255], 4 * i);
    }
    pen.putImageData(image, 0, 0);
  }
  const PREPARE = { heat, tissue: outlines, truth: outlines, tiles };

  // ---- painting -----------------------------------------------------------------------------------------------

  const canvas = $("paint");
  viewer.canvas.append(canvas);  // above the slide, below the small map in the corner
  let due = false;
  function paint() { if (!due) { due = true; requestAnimationFrame(paintNow); } }
  function paintNow() {
    due = false;
    const ratio = devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas, pen = canvas.getContext("2d");
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    $("scale").hidden = true; readout();
    if (!state.facts || !item()) return;
    const from = item().imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const to = item().imageToViewerElementCoordinates(new OpenSeadragon.Point(state.facts.size0[0], 0));
    const scale = (to.x - from.x) / state.facts.size0[0];  // screen px per level-0 px
    pen.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * from.x, ratio * from.y);
    const view = { scale, left: -from.x / scale, top: -from.y / scale, right: (width - from.x) / scale, bottom: (height - from.y) / scale };
    for (const name of ["heat", "tiles", "tissue", "truth"]) {
      const data = state.data[name];
      if (state.on.has(name) && data && !data.waiting && !data.problem) { pen.save(); PAINT[name](pen, data, view); pen.restore(); }
    }
    scaleBar(scale);
  }
  function paintHeat(pen, data, view) {
    pen.globalAlpha = $("opacity").value / 100;
    pen.imageSmoothingEnabled = data.cell0[0] * view.scale < 1;
    pen.drawImage(data.canvas, ...data.origin0, data.size[0] * data.cell0[0], data.size[1] * data.cell0[1]);
  }
  function paintTiles(pen, data, view) {
    if (!data.count) return;
    const [w, h] = data.side0;
    if (Math.min(w, h) * view.scale < OUTLINE_PX) {
      pen.globalAlpha = 0.45;
      pen.drawImage(data.shade, ...data.box);
      return;
    }
    pen.beginPath();
    for (let i = 0; i < data.xy0.length; i += 2) {
      const x = data.xy0[i], y = data.xy0[i + 1];
      if (x < view.right && x + w > view.left && y < view.bottom && y + h > view.top) pen.rect(x, y, w, h);
    }
    pen.lineWidth = 1.2 / view.scale; pen.strokeStyle = "rgba(47,111,255,.85)"; pen.stroke();
  }
  function paintOutlines(pen, data, view, casing) {
    pen.lineJoin = "round";
    for (const { path, colour: [r, g, b] } of data.groups) {
      pen.lineWidth = 4 / view.scale; pen.strokeStyle = casing; pen.stroke(path);
      pen.lineWidth = 2 / view.scale; pen.strokeStyle = `rgb(${r} ${g} ${b})`; pen.stroke(path);
    }
  }
  const PAINT = {
    heat: paintHeat, tiles: paintTiles,
    tissue: (...given) => paintOutlines(...given, "rgba(255,255,255,.75)"), truth: (...given) => paintOutlines(...given, "rgba(0,0,0,.75)"),
  };
  const um = length => length >= 1000 ? `${+(length / 1000).toPrecision(6)} mm` : `${+length.toPrecision(6)} µm`;
  function scaleBar(scale) {
    const mpp = state.facts.mpp.x;
    if (!mpp) return;
    const most = 160 / scale * mpp, power = 10 ** Math.floor(Math.log10(most));
    const length = Math.max(...[1, 2, 5].map(by => by * power).filter(by => by <= most));
    $("scale").hidden = false; $("scale-text").textContent = um(length);
    $("scale-line").style.width = `${length / mpp * scale}px`;
    state.shownMpp = mpp / scale;
  }
  function readout() {
    const parts = [], facts = state.facts;
    if (facts && item() && state.pointer) {
      const at = item().viewerElementToImageCoordinates(state.pointer), x = Math.floor(at.x), y = Math.floor(at.y);
      if (x >= 0 && y >= 0 && x < facts.size0[0] && y < facts.size0[1]) parts.push(`x ${x.toLocaleString("en")}  y ${y.toLocaleString("en")} px`, ...heatAt(at));
    }
    if (facts?.mpp.x && item() && state.shownMpp) parts.push(`${+state.shownMpp.toPrecision(3)} µm/px on screen`);
    $("readout").textContent = parts.join("   ");
  }
  function heatAt({ x, y }) {
    const data = state.data.heat;
    if (!state.on.has("heat") || !data?.canvas) return [];
    const column = Math.floor((x - data.origin0[0]) / data.cell0[0]), row = Math.floor((y - data.origin0[1]) / data.cell0[1]);
    const index = row * data.size[0] + column;
    if (column < 0 || row < 0 || column >= data.size[0] || row >= data.size[1] || !data.ranks[index]) return [];
    return [`${modelNow().kind} ${data.values[index].toPrecision(3)}, rank ${((data.ranks[index] - 1) / 254).toFixed(2)}`];
  }

  // ---- what stands beside -------------------------------------------------------------------------------------

  function sides() { layerControls(); predictions(); slideFacts(); }
  function options(select, names, chosen) {
    select.replaceChildren(...names.map(name => new Option(name, name, false, name === chosen)));
    select.hidden = names.length < 2;
  }
  function layerControls() {
    for (const name of LAYERS) {
      const box = layerBox(name), data = state.data[name], on = state.on.has(name);
      box.classList.toggle("on", on && there(name)); box.classList.toggle("none", !there(name));
      box.querySelector("input").checked = on;
      box.querySelector("output").value = !state.facts ? "" : !there(name) ? "none" : !on ? "" : data?.problem ?? (data?.waiting ? "loading…" : data?.count !== undefined ? data.count.toLocaleString("en") : "");
      box.querySelector("output").classList.toggle("wrong", !!data?.problem);
      const legend = box.querySelector(".legend");
      if (legend) legend.replaceChildren(...(data?.groups ?? []).map(legendLine), ...(data?.tile_px ? [tileLine(data)] : []));
    }
    const { model, names, scores, score, kind } = modelNow(), data = state.data.heat;
    options($("model"), names, model); options($("score"), scores, score);
    $("model").hidden = !names.length; $("heat-scale").value = state.scale;
    const raw = state.scale === "raw", ready = data?.canvas;
    $("low").textContent = ready ? raw ? data.low.toPrecision(3) : "lowest" : "";
    $("high").textContent = ready ? `${raw ? data.high.toPrecision(3) : "highest"} ${kind}` : "";
    const pen = $("bar").getContext("2d"), image = pen.createImageData(256, 1);
    if (ready) for (let i = 0; i < 256; i++) image.data.set([...data.palette.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    pen.putImageData(image, 0, 0);
  }
  function legendLine({ name, colour: [r, g, b], polygons }) {
    const line = make("span"), swatch = make("i");
    swatch.style.borderColor = `rgb(${r} ${g} ${b})`;
    line.append(swatch, `${name}, ${polygons.length} ${polygons.length === 1 ? "outline" : "outlines"}`);
    return line;
  }
  function tileLine({ tile_px, mpp, empty_reason }) {
    return make("span", "", empty_reason || `${tile_px} px at ${+mpp[0].toPrecision(4)} µm/px = ${um(+(tile_px * mpp[0]).toPrecision(4))}`);
  }
  function chips(slide) {
    if (!slide) return [];
    const made = [make("span", "chip", `patient ${slide.patient}`)];
    for (const [name, value] of Object.entries(slide.labels).slice(0, 3)) if (value) made.push(make("span", "chip", `${name}: ${value}`));
    const said = slide.said[firstModel(slide)];
    if (said?.predicted) { const right = verdict(said.right); made.push(make("span", `chip ${right}`, `${MARK[right]}predicted ${said.predicted}`)); }
    return made;
  }
  function predictions() {
    const found = Object.entries(state.facts?.predictions ?? {});
    $("said").replaceChildren(...found.map(([model, said]) => {
      const box = make("div", "said"), right = verdict(said.right);
      box.append(make("h3", "", model), ...(SAID[said.kind] ?? SAID.none)(said, right));
      return box;
    }));
    if (!found.length) $("said").append(make("p", "soft", state.facts ? "none of this patient (only those by models that never saw a patient are shown)" : ""));
  }
  const percent = share => `${(100 * share).toFixed(1)}%`;
  const SAID = {
    classification(said, right) {
      const made = [];
      if (said.predicted) made.push(make("p", right, `${MARK[right]}predicted ${said.predicted}${said.label ? `, labelled ${said.label}` : ""}`));
      else made.push(make("p", "", `folds disagree${said.label ? `, labelled ${said.label}` : ""}`));
      for (const [name, share] of Object.entries(said.probability)) {
        const row = make("div", `prob${name === said.label ? " label" : ""}`), bar = make("progress"), value = make("output", "", percent(share));
        bar.max = 1; bar.value = share; bar.setAttribute("aria-label", `probability of ${name}`);
        const label = make("span", "", name); label.title = name;
        row.append(label, bar, value); made.push(row);
      }
      const folds = said.folds.filter(one => one.fold !== null);
      if (!folds.length) return made;
      const names = Object.keys(said.probability).slice(-1), table = make("table"), head = make("tr");
      head.append(make("th", "", "fold"), make("th", "n", `p(${names[0]})`), make("th", "n", "threshold"), make("th", "", "calls"));
      table.append(head, ...folds.map(one => {
        const row = make("tr"), ok = said.label ? verdict(one.predicted === said.label) : "";
        row.append(make("td", "", one.fold), make("td", "n", one.probability[names[0]].toFixed(3)), make("td", "n", one.threshold === null ? "–" : one.threshold.toFixed(3)), make("td", ok, `${MARK[ok]}${one.predicted}`));
        return row;
      }));
      return [...made, table];
    },
    regression: said => [make("p", "", `predicted ${said.prediction.toPrecision(4)}${said.label ? `, measured ${said.label}` : ""}`)],
    survival: said => [
      make("p", "", `risk ${said.risk.toPrecision(3)} (higher: earlier)`),
      ...(said.time !== null && said.time !== undefined ? [make("p", "", `${said.event ? "event" : "censored"} at ${said.time}`)] : []),
      ...Object.entries(said.survival).map(([time, share]) => make("p", "soft", `alive at ${time}: ${percent(share)}`)),
    ],
    none: said => [make("p", "wrong", said.reason || "no prediction")],
  };
  function slideFacts() {
    const facts = state.facts, rows = [];
    if (facts) {
      const { x, y, source } = facts.mpp, [w, h] = facts.size0;
      rows.push(["file", facts.file], ["patient", facts.patient], ["reader", `${facts.reader} (${facts.vendor})`]);
      rows.push(["µm/px", x ? `${+x.toPrecision(6)}${x === y ? "" : ` × ${+y.toPrecision(6)}`}, by ${source}` : `not known: ${source}`]);
      rows.push(["size", `${w.toLocaleString("en")} × ${h.toLocaleString("en")} px`]);
      if (x) rows.push(["", `${um(+(w * x).toPrecision(4))} × ${um(+(h * y).toPrecision(4))}`]);
      if (facts.objective) rows.push(["objective", `${facts.objective}×`]);
      rows.push(["levels", facts.levels.map(([a, b]) => `${a} × ${b}`).join(", ")]);
    }
    $("facts").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
  }

  // ---- keys, buttons, address ---------------------------------------------------------------------------------

  function remember() {
    const address = new URLSearchParams({ slide: state.slide ?? "", layers: LAYERS.filter(name => state.on.has(name)).join(",") });
    for (const name of ["model", "score"]) if (state[name]) address.set(name, state[name]);
    if (state.scale === "raw") address.set("scale", "raw");
    if (state.facts && item() && !state.at) {
      const centre = item().viewportToImageCoordinates(viewer.viewport.getCenter());
      const zoom = item().viewportToImageZoom(viewer.viewport.getZoom());
      address.set("at", `${Math.round(centre.x)},${Math.round(centre.y)},${+(1 / zoom).toPrecision(4)}`);
    } else if (state.at) address.set("at", state.at);
    history.replaceState(null, "", `?${address.toString().replaceAll("%2C", ",")}`);
  }
  function zoom(how) {
    if (!item()) return;
    if (how === "in") viewer.viewport.zoomBy(1.6); else if (how === "out") viewer.viewport.zoomBy(1 / 1.6);
    else if (how === "one") viewer.viewport.zoomTo(zoomOf(1)); else { home(false); return; }
    viewer.viewport.applyConstraints();
  }
  function pan(x, y) {
    if (!item()) return;
    const by = viewer.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(120 * x, 120 * y));
    viewer.viewport.panBy(by); viewer.viewport.applyConstraints();
  }
  function nextModel() {
    const { names, model } = modelNow();
    if (names.length > 1) { state.model = names[(names.indexOf(model) + 1) % names.length]; reheat(); }
  }
  function fade(by) { $("opacity").value = +$("opacity").value + by; paint(); }
  const KEYS = {
    n: () => step(1), PageDown: () => step(1), p: () => step(-1), PageUp: () => step(-1), "+": () => zoom("in"), "=": () => zoom("in"), "-": () => zoom("out"),
    0: () => zoom("home"), f: () => zoom("one"), m: nextModel, "[": () => fade(-10), "]": () => fade(10), "?": () => $("help").showModal(),
    ArrowLeft: () => pan(-1, 0), ArrowRight: () => pan(1, 0), ArrowUp: () => pan(0, -1), ArrowDown: () => pan(0, 1),
    "/": () => { $("list").classList.add("open"); $("filter").focus(); },
    Escape: () => { $("list").classList.remove("open"); $("side").classList.remove("open"); },
    ...Object.fromEntries(LAYERS.map((name, index) => [index + 1, () => toggle(name)])),
  };
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const typing = event.target.matches("input[type=search], select"), arrows = event.key.startsWith("Arrow");
    if (typing) { if (event.key === "Escape" || (event.key === "Enter" && event.target === $("filter"))) event.target.blur(); return; }
    if (arrows && event.target.matches("input[type=range], #slides *, #side")) return;
    const act = KEYS[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  for (const name of LAYERS) layerBox(name).querySelector("input").addEventListener("change", event => toggle(name, event.target.checked));
  $("model").addEventListener("change", event => { state.model = event.target.value; reheat(); });
  $("score").addEventListener("change", event => { state.score = event.target.value; reheat(); });
  $("heat-scale").addEventListener("change", event => {
    state.scale = event.target.value;
    if (state.data.heat?.canvas) colour(state.data.heat);
    sides(); remember(); paint();
  });
  $("opacity").addEventListener("input", paint);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("zoom").addEventListener("click", event => event.target.dataset.zoom && zoom(event.target.dataset.zoom));
  $("filter").addEventListener("input", filter);
  for (const [button, panel] of [["show-list", "list"], ["show-side", "side"]]) {
    $(button).addEventListener("click", () => $(button).setAttribute("aria-expanded", $(panel).classList.toggle("open")));
  }
  $("viewer").addEventListener("pointermove", event => {
    const box = $("viewer").getBoundingClientRect();
    state.pointer = new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
    readout();
  });
  $("viewer").addEventListener("pointerleave", () => { state.pointer = null; readout(); });
  viewer.addHandler("update-viewport", paintNow);  // at once: a frame later the layers would lag behind the pixels
  for (const name of ["resize", "animation", "open"]) viewer.addHandler(name, paint);
  viewer.addHandler("animation-finish", remember);
  new ResizeObserver(paintNow).observe(canvas);

  async function start() {
    try { state.run = await ask("run"); }
    catch (problem) { say(problem); return; }
    $("run-problem").hidden = !state.run.problem; $("run-problem").textContent = state.run.problem ?? "";
    state.entries = state.run.slides.map(listEntry);
    $("slides").replaceChildren(...state.entries.map(entry => entry.item));
    $("filter").value = asked.get("filter") ?? "";
    filter();
    const wanted = state.entries.find(entry => entry.slide.id === asked.get("slide"));
    await show((wanted ?? state.listed[0] ?? state.entries[0]).slide.id);
    if (asked.has("slide") && !wanted && asked.get("slide")) say({ what: `the run has no slide ${asked.get("slide")}`, hint: "" }, true);
  }
  start();
})();
