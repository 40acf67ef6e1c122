document.querySelectorAll("table.sortable").forEach(function (table) {
  var heads = Array.from(table.querySelectorAll("thead th"));
  heads.forEach(function (head, column) {
    head.querySelector("button").addEventListener("click", function () {
      var down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      var value = function (row) {
        var cell = row.cells[column];
        return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
      };
      var body = table.tBodies[0];
      Array.from(body.rows).sort(function (a, b) {
        var x = value(a), y = value(b);
        var order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
        return down ? -order : order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
