"""Your own data: a folder of pictures, a table, arrays or IDX files, from the disk to images in memory."""
