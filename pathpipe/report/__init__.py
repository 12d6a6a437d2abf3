"""Report: one offline HTML page that shows a whole run."""
