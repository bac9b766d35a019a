import { afterEach, expect, test } from "vitest";
import { type Command, keyOf, listenToKeys, pressed, shown, useRegistry } from "./commands";
import { usePreferences } from "./preferences";

listenToKeys();
let ran: string[] = [];
const offer = (...commands: Partial<Command>[]) =>
  useRegistry.setState({
    parts: new Map(
      commands.map((one, place) => [
        String(place),
        [{ id: `c${place}`, title: "t", group: "g", run: () => ran.push(one.id ?? `c${place}`), ...one } as Command],
      ]),
    ),
  });
const press = (key: string, init: KeyboardEventInit = {}, target: EventTarget = document.body) =>
  target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...init }));

afterEach(() => {
  ran = [];
  usePreferences.setState({ keys: {} });
  document.body.innerHTML = "";
});

test("keys are read as they are written", () => {
  expect(pressed(new KeyboardEvent("keydown", { key: "Enter", ctrlKey: true, shiftKey: true }))).toBe(
    "mod+shift+enter",
  );
  expect(pressed(new KeyboardEvent("keydown", { key: "?", shiftKey: true }))).toBe("?");
  expect(pressed(new KeyboardEvent("keydown", { key: "A", shiftKey: true }))).toBe("shift+a");
  expect(pressed(new KeyboardEvent("keydown", { key: "Shift", shiftKey: true }))).toBe("");
  expect(shown("mod+shift+enter")).toBe("Ctrl+Shift+Enter");
});

test("of two commands with a key, the one that came later runs; one that cannot run does not", () => {
  offer({ id: "a", key: "x" }, { id: "b", key: "x" }, { id: "c", key: "x", enabled: false });
  press("x");
  expect(ran).toEqual(["b"]);
});

test("letters belong to the field in which somebody types, combinations do not", () => {
  offer({ id: "a", key: "x" }, { id: "b", key: "mod+k" });
  const field = document.body.appendChild(document.createElement("textarea"));
  press("x", {}, field);
  press("k", { ctrlKey: true }, field);
  expect(ran).toEqual(["b"]);
});

test("Escape leaves a field, so that letters are keys again", () => {
  offer({ id: "a", key: "x" });
  const field = document.body.appendChild(document.createElement("input"));
  field.focus();
  press("Escape", {}, field);
  expect(document.activeElement).not.toBe(field);
  press("x");
  expect(ran).toEqual(["a"]);
});

test("a changed key holds, and an empty one switches the command's key off", () => {
  offer({ id: "a", key: "x" });
  usePreferences.setState({ keys: { a: "y" } });
  press("x");
  press("y");
  expect(ran).toEqual(["a"]);
  usePreferences.setState({ keys: { a: "" } });
  expect(keyOf({ id: "a", key: "x" })).toBe("");
  press("x");
  expect(ran).toEqual(["a"]);
});

test("behind an open window only combinations and the window's own keys answer", () => {
  offer({ id: "a", key: "x" }, { id: "window.w", key: "w" });
  document.body.innerHTML = "<div role='dialog'></div>";
  press("x");
  press("w");
  expect(ran).toEqual(["window.w"]);
});

test("Enter presses the button that has the focus", () => {
  offer({ id: "a", key: "enter" });
  const button = document.body.appendChild(document.createElement("button"));
  press("Enter", {}, button);
  expect(ran).toEqual([]);
  press("Enter");
  expect(ran).toEqual(["a"]);
});

test("a short message at the edge holds no key back, a window does", () => {
  offer({ id: "gallery.trash", key: "delete" });
  document.body.innerHTML = '<div role="dialog" aria-modal="false">Clip finished</div>';
  press("Delete");
  expect(ran).toEqual(["gallery.trash"]);
  document.body.innerHTML = '<div role="dialog">A window</div>';
  press("Delete");
  expect(ran).toEqual(["gallery.trash"]);
});
