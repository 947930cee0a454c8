"""Image files to pixels, in threads and processes of their own, without torch: such a process starts in .2 s."""
