"""The pages behind the links in every mail: what a person gets and why, and the way out."""
