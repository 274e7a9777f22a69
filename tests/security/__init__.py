"""What strangers send: code in files, paths that leave a folder, files that unfold, wrong passwords."""
