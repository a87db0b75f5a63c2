"""One module per figure or table: config -> data set -> figure."""
