"""What Prometheus scrapes: metric families, their labels, and the page that serves them."""
