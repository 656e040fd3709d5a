"""`sae-monitor demo`: a server, real prompts, and what the monitor does with them."""
