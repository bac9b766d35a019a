export default function Page() {
  return <h1 className="p-4">gallery-page</h1>;
}
