(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");

  /* An element with attributes and children. Text from outside becomes text, never markup. */
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) element.setAttribute(key, "");
      else if (value !== false && value != null) element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child != null));
    return element;
  };
  const json = (id) => {
    const block = document.getElementById(id);
    return block ? JSON.parse(block.textContent) : null;
  };

  /* ---- tips: the figures under the pointer, or in the cell that has the focus */
  const tip = make("div", { id: "tip", "aria-hidden": "true" });
  document.body.append(tip);
  const place = (x, y) => {
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${y + 18 + height > innerHeight ? Math.max(8, y - height - 12) : y + 18}px`;
  };
  let current = null;
  const show = (element, x, y) => {
    current = element;
    if (element) {
      tip.textContent = element.dataset.tip;
      place(x, y);
    }
    tip.classList.toggle("shown", Boolean(element));
  };
  const tipped = (event) => (event.target instanceof Element ? event.target.closest("[data-tip]") : null);
  document.addEventListener("pointermove", (event) => show(tipped(event), event.clientX, event.clientY));
  document.addEventListener("pointerdown", (event) => show(tipped(event), event.clientX, event.clientY));
  document.documentElement.addEventListener("pointerleave", () => show(null));
  const showBelow = (element) => {
    const box = element?.getBoundingClientRect();
    show(element, box ? box.left : 0, box ? box.bottom - 14 : 0);
  };
  addEventListener("scroll", () => {
    if (current?.contains(document.activeElement)) showBelow(current);
    else if (current && !current.matches(":hover")) show(null);
  }, { passive: true });
  document.addEventListener("focusin", (event) => showBelow(event.target.matches(":focus-visible") ? tipped(event) : null));

  /* ---- sheets over the page; Escape closes the upper one, and the focus goes back to where it came from */
  let sheets = 0;
  const sheet = (title, kind, ...content) => {
    const id = `sheet-${(sheets += 1)}`;
    const close = make("button", { type: "button", class: "plain" }, "Close");
    const heading = make("h2", { id }, title);
    const dialog = make("dialog", { class: `sheet ${kind}`, "aria-labelledby": id }, make("header", {}, heading, close), ...content);
    const back = document.activeElement;
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      back?.focus();
    });
    document.body.append(dialog);
    show(null);
    dialog.showModal();
    return dialog;
  };

  /* ---- the photos */
  const data = json("photo-rows");
  const percent = (tenths) => `${(tenths / 10).toFixed(1)}\u00a0%`;
  const bdi = (text) => make("bdi", {}, text);
  let pictures = null;
  const picture = (row, alt, kind) => {
    pictures ??= json("photo-pictures");
    if (row[3] < 0) return make("span", { class: `${kind} gone`, role: "img", "aria-label": `${alt}; no picture of it here` }, "no picture");
    return make("img", { class: kind, alt, src: `data:image/jpeg;base64,${pictures[row[3]]}` });
  };
  const file = (path) => path.slice(path.lastIndexOf("/") + 1);

  const openPhoto = (row) => {
    const [path, truth, said, , fifths] = row;
    const rows = data.strategies.map((strategy, index) => {
      const [guess, sure] = said[index];
      const right = guess === truth;
      return make(
        "tr", {},
        make("th", { scope: "row" }, bdi(strategy.name)),
        make("td", { class: "words" }, make("span", { class: right ? "good" : "wrong" }, make("b", {}, bdi(data.classes[guess])))),
        make("td", {}, percent(sure)),
        make("td", {}, right ? "✓ correct" : "✕ wrong"),
      );
    });
    const heads = ["Strategy", "Predicted", "Confidence", ""].map((text, index) =>
      text ? make("th", { scope: "col", class: index === 1 ? "words" : null }, text) : make("td", {}));
    const notes = data.measures.flatMap((measure, index) =>
      fifths[index] === 0 ? [measure.ends[0]] : fifths[index] === 4 ? [measure.ends[1]] : []);
    sheet(
      file(path), "one",
      picture(row, `${path}, truly ${data.classes[truth]}`, "one-photo"),
      make("p", {}, "True class: ", make("b", {}, bdi(data.classes[truth])), notes.length ? `. Among the ${notes.join(", ")}.` : ""),
      make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)),
      make("p", { class: "note" }, bdi(path)),
    );
  };
  const tile = (row, index) => {
    const [path, truth, said] = row;
    const [guess, sure] = said[index];
    const right = guess === truth;
    const label = `${path}: truly ${data.classes[truth]}, predicted ${data.classes[guess]} with ${percent(sure)} confidence`;
    const caption = make("span", { class: `said ${right ? "good" : "wrong"}` }, make("b", {}, bdi(data.classes[guess])), make("br"), `${percent(sure)} confident`);
    if (!right) caption.append(make("br"), "true: ", bdi(data.classes[truth]));
    const button = make("button", { type: "button", class: "tile", "aria-label": label }, picture(row, "", "photo"), caption, make("span", { class: "file" }, bdi(file(path))));
    button.addEventListener("click", () => openPhoto(row));
    return make("li", {}, button);
  };
  const STEP = 48;
  /* Fill a list with tiles, some at a time. */
  const fill = (list, more, rows, index, tell = () => {}) => {
    let shown = STEP;
    list.replaceChildren(...rows.slice(0, shown).map((row) => tile(row, index)));
    const rest = rows.length - shown;
    more.hidden = rest <= 0;
    more.textContent = `Show ${Math.min(STEP, rest)} more`;
    more.onclick = () => {
      list.append(...rows.slice(shown, shown + STEP).map((row) => tile(row, index)));
      list.children[shown]?.querySelector("button")?.focus();
      shown += STEP;
      more.hidden = shown >= rows.length;
      more.textContent = `Show ${Math.min(STEP, rows.length - shown)} more`;
      tell(Math.min(shown, rows.length));
    };
    tell(Math.min(shown, rows.length));
  };

  let chooseInGallery = () => {};
  if (data) {
    const gallery = document.getElementById("gallery");
    const form = gallery.querySelector("form");
    const field = form.elements;
    const list = gallery.querySelector(".photos");
    const more = gallery.querySelector(".more");
    const found = gallery.querySelector(".found");
    const option = (select, text, value) => select.append(make("option", { value }, text));
    data.strategies.forEach((strategy, index) => option(field.strategy, strategy.name, index));
    field.strategy.lastElementChild.setAttribute("selected", "");
    field.strategy.selectedIndex = data.strategies.length - 1;
    data.classes.forEach((label, index) => {
      option(field.true, label, index);
      option(field.predicted, label, index);
    });
    data.measures.forEach((measure, index) => {
      measure.ends.forEach((end, side) => option(field.measure, `among the ${end}`, `${index}:${side * 4}`));
    });
    gallery.querySelector("[data-measures]").hidden = !data.measures.length;
    if (data.strategies.length < 2) {
      field.strategy.closest("label").hidden = true;
      for (const value of ["all", "differ"]) field.answer.querySelector(`[value=${value}]`).remove();
    }

    const matches = (row) => {
      const [, truth, said, , fifths] = row;
      const [guess, sure] = said[Number(field.strategy.value)];
      const answer = field.answer.value;
      if (answer === "wrong" && guess === truth) return false;
      if (answer === "right" && guess !== truth) return false;
      if (answer === "all" && said.some(([other]) => other === truth)) return false;
      if (answer === "differ" && said.every(([other]) => other === said[0][0])) return false;
      if (field.true.value && truth !== Number(field.true.value)) return false;
      if (field.predicted.value && guess !== Number(field.predicted.value)) return false;
      if (sure < 10 * Number(field.low.value) || sure > 10 * Number(field.high.value)) return false;
      if (!field.measure.value) return true;
      const [index, fifth] = field.measure.value.split(":").map(Number);
      return fifths[index] === fifth;
    };
    const update = () => {
      const index = Number(field.strategy.value);
      const rows = data.photos.filter(matches);
      const wrongFirst = (a, b) => (a[2][index][0] === a[1]) - (b[2][index][0] === b[1]) || b[2][index][1] - a[2][index][1];
      const orders = { "": wrongFirst, sure: (a, b) => b[2][index][1] - a[2][index][1], unsure: (a, b) => a[2][index][1] - b[2][index][1] };
      rows.sort(orders[field.order.value]);
      const say = (shown) => {
        found.textContent = `${rows.length.toLocaleString("en")} of ${data.photos.length.toLocaleString("en")} photos match${rows.length > shown ? `; ${shown} shown` : ""}.`;
      };
      fill(list, more, rows, index, say);
      gallery.querySelector(".nothing").hidden = rows.length > 0;
      for (const range of [field.low, field.high]) range.nextElementSibling.textContent = `${range.value}\u00a0%`;
    };
    form.addEventListener("input", (event) => {
      if (event.target === field.low && Number(field.low.value) > Number(field.high.value)) field.high.value = field.low.value;
      if (event.target === field.high && Number(field.high.value) < Number(field.low.value)) field.low.value = field.high.value;
      update();
    });
    form.querySelector("button").addEventListener("click", () => {
      form.reset();
      update();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    chooseInGallery = (strategy, truth, guess) => {
      form.reset();
      field.strategy.value = strategy;
      field.true.value = truth;
      field.predicted.value = guess;
      update();
      document.getElementById("h-photos").focus();
    };
    gallery.hidden = false;
    update();
  }

  /* ---- confusion matrices: each cell opens its photos; arrow keys move between cells */
  const openCell = (strategy, truth, guess) => {
    const rows = data.photos.filter((row) => row[1] === truth && row[2][strategy][0] === guess);
    rows.sort((a, b) => b[2][strategy][1] - a[2][strategy][1]);
    const list = make("ul", { class: "photos" });
    const more = make("button", { type: "button", class: "more" });
    const [from, to] = [data.classes[truth], data.classes[guess]];
    const title = truth === guess ? `${from}, classified correctly` : `${from} taken for ${to}`;
    const on = make("button", { type: "button", class: "plain" }, "Filter further in the gallery");
    const count = `${data.strategies[strategy].name}: ${rows.length === 1 ? "1 photo" : `${rows.length} photos`}, most confident first.`;
    const dialog = sheet(title, "cell", make("p", { class: "note" }, count), list, more, make("p", {}, on));
    if (!rows.length) list.replaceWith(make("p", { class: "nothing" }, "No photo of this kind."));
    fill(list, more, rows, strategy);
    on.addEventListener("click", () => {
      dialog.close();
      chooseInGallery(strategy, truth, guess);
    });
  };
  for (const table of document.querySelectorAll("table.matrix")) {
    const strategy = data ? data.strategies.findIndex((s) => s.name === table.dataset.strategy) : -1;
    const size = table.tBodies[0]?.rows.length ?? 0;
    if (strategy < 0 || size > 40) continue;
    const labels = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
    const place = labels.map((label) => data.classes.indexOf(label));
    const cells = [...table.tBodies[0].rows].map((row, i) => [...row.cells].slice(1).map((cell, j) => {
      const count = cell.textContent;
      const label = `${count} ${count === "1" ? "photo" : "photos"}: truly ${labels[i]}, predicted ${labels[j]}`;
      const button = make("button", { type: "button", tabindex: i || j ? "-1" : "0", "aria-label": label }, count);
      button.addEventListener("click", () => openCell(strategy, place[i], place[j]));
      button.addEventListener("keydown", (event) => {
        const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -size], End: [0, size] };
        const step = steps[event.key];
        if (!step) return;
        event.preventDefault();
        const clamp = (value) => Math.max(0, Math.min(size - 1, value));
        const next = cells[clamp(i + step[0])][clamp(j + step[1])];
        for (const other of table.querySelectorAll("button")) other.tabIndex = other === next ? 0 : -1;
        next.focus();
      });
      cell.replaceChildren(button);
      return button;
    }));
  }

  /* ---- contents: where in the page one is */
  const links = new Map([...document.querySelectorAll(".toc a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const [id, link] of links) {
        const here = id === entry.target.id;
        here ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
        const strip = link.closest("ul");
        if (here && strip.scrollWidth > strip.clientWidth) strip.scrollTo({ left: link.offsetLeft - 40 });
      }
    }
  }, { rootMargin: "-10% 0px -75% 0px" });
  for (const id of links.keys()) if (document.getElementById(id)) watch.observe(document.getElementById(id));

  /* ---- paper has no buttons: what is folded is printed unfolded, but for the numbers behind drawings */
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open], .quiet)")];
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });
})();
