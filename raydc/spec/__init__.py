"""What a study file specifies: keys, points, grids, ids and plans."""
