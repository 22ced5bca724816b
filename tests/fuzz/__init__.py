"""Every reader of files, given files that were made to do harm: it returns checked data or raises an error of ours."""
