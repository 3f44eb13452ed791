"""What the levers share: types, parts, and the only two loops over attack steps."""
