"use strict";
// UTC is in the page; the reader's own time is what only the browser knows.
const shape = new Intl.DateTimeFormat([], {dateStyle: "medium", timeStyle: "medium"});
for (const time of document.querySelectorAll("time")) {
  time.textContent = shape.format(new Date(time.dateTime));
  time.hidden = false;
}
// A field left empty is no filter.
document.querySelector("form").addEventListener("formdata", (event) => {
  for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
});
