"""The commands of the laboratory, one file each: flags in, a call out."""
