"""The task routes: submit, queue, gallery."""
