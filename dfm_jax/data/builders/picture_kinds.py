"""Kinds of pictures: which are read, and what to say of the others."""

# Read by Pillow, the deep ones by OpenCV.
READ = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif")
READ += (".jfif", ".jpe", ".mpo", ".jp2", ".j2k", ".gif", ".apng", ".ppm", ".pgm", ".pnm", ".pfm", ".tga", ".psd")
HEIF = (".heic", ".heif", ".hif")  # read with the extra `heic`
RAW = (".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".raw", ".pef")
RAW += (".srw", ".x3f", ".3fr", ".fff", ".iiq", ".rwl", ".dcr", ".kdc", ".erf", ".mrw", ".mef", ".mos", ".gpr")
OTHER = {
    ".jxl": "JPEG XL",
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    ".psb": "a large Photoshop file",
    ".xcf": "GIMP's",
}
SUFFIXES = (*READ, *HEIF, *RAW, *OTHER)
