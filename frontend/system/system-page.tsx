export default function Page() {
  return <h1 className="p-4">system-page</h1>;
}
