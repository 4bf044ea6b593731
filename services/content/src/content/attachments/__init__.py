"""Files that go with an item: taken in, looked through, kept. `content.web.files` hands them out."""
