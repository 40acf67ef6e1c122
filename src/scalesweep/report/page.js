// Figures are drawn already: this shows, hides and reads them. Without it the page stays readable.
(function () {
  "use strict";
  var root = document.documentElement;
  root.classList.add("js");

  function all(selector, within) {
    return Array.from((within || document).querySelectorAll(selector));
  }
  function made(name, attributes, words) {
    var element = document.createElement(name);
    Object.keys(attributes || {}).forEach(function (key) {
      element.setAttribute(key, attributes[key]);
    });
    if (words !== undefined) { element.textContent = words; }
    return element;
  }
  function press(button, on) { button.setAttribute("aria-pressed", String(on)); }
  function isPressed(button) { return button.getAttribute("aria-pressed") === "true"; }

  // ---- light or dark, kept where the browser lets a file keep anything
  (function () {
    var button = made("button", { type: "button", class: "theme" });
    var asked = window.matchMedia("(prefers-color-scheme: dark)");
    function isDark() {
      return root.dataset.theme ? root.dataset.theme === "dark" : asked.matches;
    }
    function name() {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", "Switch to " + (isDark() ? "light" : "dark") + " colours");
    }
    try {
      var kept = localStorage.getItem("scalesweep-theme");
      if (kept === "dark" || kept === "light") { root.dataset.theme = kept; }
    } catch (error) { /* storage is off: the system's choice stands */ }
    button.addEventListener("click", function () {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("scalesweep-theme", root.dataset.theme); } catch (error) { /* as above */ }
      name();
    });
    asked.addEventListener("change", name);
    name();
    document.body.prepend(button);
  })();

  // ---- one tooltip and one voice for all figures
  var tip = made("div", { class: "tip", role: "status", hidden: "" });
  var voice = made("div", { class: "sr", "aria-live": "polite" });
  document.body.append(tip, voice);

  function show(lines, x, y) {
    tip.replaceChildren.apply(tip, lines.map(function (line) { return made("p", {}, line); }));
    tip.hidden = false;
    var width = tip.offsetWidth, height = tip.offsetHeight;
    var left = x + 14 + width > root.clientWidth - 8 ? x - 14 - width : x + 14;
    var top = y - 12 - height < 8 ? y + 16 : y - 12 - height;
    tip.style.left = Math.max(8, left) + window.scrollX + "px";
    tip.style.top = top + window.scrollY + "px";
  }
  function hide() {
    tip.hidden = true;
    all(".mark.at").forEach(function (mark) { mark.classList.remove("at"); });
  }
  document.addEventListener("keydown", function (event) { if (event.key === "Escape") { hide(); } });

  // The browser's own tooltip gives way: words move from <title> to the element.
  all("svg.figure .mark").forEach(function (mark) {
    var title = mark.querySelector("title");
    if (!title) { return; }
    mark.dataset.tip = title.textContent;
    mark.setAttribute("aria-label", title.textContent.replace(/\n/g, ", "));
    title.remove();
  });

  function pointAt(mark, x, y) {
    hide();
    mark.classList.add("at");
    show(mark.dataset.tip.split("\n"), x, y);
  }
  all("svg.figure").forEach(function (figure) {
    var marks = all(".mark[data-tip]", figure);
    if (!marks.length) { return; }
    figure.addEventListener("pointermove", function (event) {
      var mark = event.target.closest(".mark[data-tip]");
      if (mark) { pointAt(mark, event.clientX, event.clientY); }
      else if (!figure.dataset.axes) { hide(); }
    });
    figure.addEventListener("pointerleave", hide);
    // One stop of the tab key per figure; arrows go from mark to mark.
    figure.setAttribute("tabindex", "0");
    figure.setAttribute("role", "group");
    figure.setAttribute("aria-label", figure.getAttribute("aria-label") + ". Arrow keys read its marks.");
    var place = -1;
    figure.addEventListener("keydown", function (event) {
      var step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      var open = marks.filter(function (mark) { return !mark.classList.contains("off"); });
      if (!step || !open.length) { return; }
      event.preventDefault();
      place = (Math.max(place, step < 0 ? 0 : -1) + step + open.length) % open.length;
      var mark = open[place], box = mark.getBoundingClientRect();
      pointAt(mark, box.left + box.width / 2, box.top + box.height / 2);
      voice.textContent = mark.getAttribute("aria-label");
    });
    figure.addEventListener("blur", hide);
  });

  // ---- choices of an axis
  all("[data-views]").forEach(function (figure) {
    var views = all(".view", figure), keys = figure.dataset.views.split(" ");
    var chosen = {}, bar = made("div", { class: "choices" }), buttons = [];
    keys.forEach(function (key) { chosen[key] = views[0].dataset[key]; });
    function fits(view) {
      return keys.every(function (key) { return view.dataset[key] === chosen[key]; });
    }
    function update(last) {
      var found = views.find(fits) || views.find(function (view) {
        return view.dataset[last] === chosen[last];
      });
      keys.forEach(function (key) { chosen[key] = found.dataset[key]; });
      views.forEach(function (view) { view.hidden = view !== found; });
      buttons.forEach(function (b) { press(b, chosen[b.dataset.key] === b.dataset.value); });
      hide();
    }
    keys.forEach(function (key) {
      var values = Array.from(new Set(views.map(function (view) { return view.dataset[key]; })));
      if (values.length < 2) { return; }
      var group = made("div", { role: "group", "aria-label": "Cost axis: " + key });
      values.forEach(function (value) {
        var button = made("button", { type: "button", "data-key": key, "data-value": value }, value);
        button.addEventListener("click", function () { chosen[key] = value; update(key); });
        buttons.push(button);
        group.append(button);
      });
      bar.append(group);
    });
    if (buttons.length) { figure.prepend(bar); update(keys[0]); }
  });

  // ---- legends: a click leaves what it names in full colour and dims the rest
  function asButton(item, on) {
    var button = made("button", { type: "button" });
    button.append.apply(button, Array.from(item.childNodes));
    item.append(button);
    press(button, on);
    return button;
  }
  all(".legend:not(.curves)").forEach(function (legend) {
    var within = legend.parentElement, chosen = [];
    var items = all("li", legend).filter(function (item) { return Object.keys(item.dataset).length; });
    function update() {
      all(".mark, .name-of", within).forEach(function (mark) {
        var kinds = {};
        chosen.forEach(function (choice) {
          kinds[choice.key] = kinds[choice.key] || mark.dataset[choice.key] === choice.value;
        });
        mark.classList.toggle("dim", Object.keys(kinds).some(function (key) { return !kinds[key]; }));
      });
    }
    items.forEach(function (item) {
      var key = Object.keys(item.dataset)[0], choice = { key: key, value: item.dataset[key] };
      var button = asButton(item, false);
      button.addEventListener("click", function () {
        press(button, !isPressed(button));
        chosen = chosen.filter(function (other) { return other !== choice; });
        if (isPressed(button)) { chosen.push(choice); }
        update();
      });
    });
  });

  // ---- loss curves: each can be shown or hidden, and values are read along a line
  all(".legend.curves").forEach(function (legend) {
    var within = legend.parentElement;
    all("li[data-curve]", legend).forEach(function (item) {
      var button = asButton(item, !item.classList.contains("off"));
      button.addEventListener("click", function () {
        press(button, !isPressed(button));
        item.classList.toggle("off", !isPressed(button));
        all("svg [data-curve='" + item.dataset.curve + "']", within).forEach(function (part) {
          part.classList.toggle("off", !isPressed(button));
        });
      });
    });
  });
  all("svg.figure[data-axes]").forEach(function (figure) {
    var axes = figure.dataset.axes.split(" ").map(Number);
    var cross = document.createElementNS(figure.namespaceURI, "line");
    cross.setAttribute("class", "crosshair off");
    cross.setAttribute("y1", axes[6]);
    cross.setAttribute("y2", axes[7]);
    figure.append(cross);
    var curves = all(".mark", figure).map(function (mark) {
      var points = mark.querySelector(".curve").getAttribute("d").slice(1).split("L");
      return { mark: mark, points: points.map(function (p) { return p.split(" ").map(Number); }) };
    });
    function step(px) { return axes[0] + (px - axes[2]) / (axes[3] - axes[2]) * (axes[1] - axes[0]); }
    function loss(py) {
      return axes[4] * Math.pow(axes[5] / axes[4], (py - axes[6]) / (axes[7] - axes[6]));
    }
    figure.addEventListener("pointermove", function (event) {
      var box = figure.getBoundingClientRect();
      var px = (event.clientX - box.left) / box.width * figure.viewBox.baseVal.width;
      cross.classList.toggle("off", px < axes[2] || px > axes[3]);
      if (px < axes[2] || px > axes[3]) { hide(); return; }
      cross.setAttribute("x1", px);
      cross.setAttribute("x2", px);
      var read = curves.filter(function (curve) {
        return !curve.mark.classList.contains("off");
      }).map(function (curve) {
        var near = curve.points.reduce(function (best, point) {
          return Math.abs(point[0] - px) < Math.abs(best[0] - px) ? point : best;
        });
        return { words: loss(near[1]).toFixed(3) + "  " + curve.mark.dataset.name, at: near[1] };
      }).sort(function (a, b) { return a.at - b.at; });
      var more = read.length > 12 ? ["and " + (read.length - 12) + " more"] : [];
      show(["step " + Math.round(step(px))].concat(
        read.slice(0, 12).map(function (value) { return value.words; }), more
      ), event.clientX, event.clientY);
    });
    figure.addEventListener("pointerleave", function () { cross.classList.add("off"); });
  });

  // ---- tables
  all("table.sortable").forEach(function (table) {
    var heads = all("thead th", table);
    heads.forEach(function (head, column) {
      head.querySelector("button").addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        function value(row) {
          var cell = row.cells[column];
          return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
        }
        var body = table.tBodies[0];
        Array.from(body.rows).sort(function (a, b) {
          var x = value(a), y = value(b);
          var order = typeof x === "number" && typeof y === "number"
            ? x - y : String(x).localeCompare(String(y));
          return down ? -order : order;
        }).forEach(function (row) { body.append(row); });
      });
    });
  });
  all("table.filterable").forEach(function (table) {
    var rows = Array.from(table.tBodies[0].rows);
    var label = made("label", { class: "filter" }, "Filter ");
    var field = made("input", { type: "search", placeholder: "words, such as: lora 48px done" });
    var count = made("span", { "aria-live": "polite" });
    label.append(field, count);
    table.parentElement.before(label);
    function update() {
      var words = field.value.toLowerCase().split(/\s+/).filter(Boolean), shown = 0;
      rows.forEach(function (row) {
        var text = row.textContent.toLowerCase();
        row.hidden = !words.every(function (word) { return text.includes(word); });
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = shown + " of " + rows.length;
    }
    field.addEventListener("input", update);
    update();
  });
})();
