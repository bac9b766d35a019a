export default function Page() {
  return <h1 className="p-4">loras-page</h1>;
}
