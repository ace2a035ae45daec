"""What the book's pages need besides the library: pictures, widgets, stored results."""
