export default function ComposePage() {
  return <h1 className="p-4">Create</h1>;
}
