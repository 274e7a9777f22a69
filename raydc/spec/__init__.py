"""What a study says: keys, points, grids, ids, plans."""
