"""`sae-monitor demo`: starts a server, sends it prompts, and checks what the monitor does with them."""
