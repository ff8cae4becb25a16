"""Labels and scores become numbers (`metrics`), pictures (`figures`) and the HTML page (`page`)."""
