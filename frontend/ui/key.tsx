/** A key as it is printed on the keyboard. */

export function Key({ children }: { children: string }) {
  return (
    <kbd className="rounded border border-current/40 px-1.5 py-px font-sans text-[0.6875rem] whitespace-nowrap">
      {children}
    </kbd>
  );
}
