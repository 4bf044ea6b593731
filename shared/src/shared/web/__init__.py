"""The one look of every page: layout, stylesheet, form parts, error pages. Services bring their own templates."""
