"""Speed and memory, measured side by side: synthetic scenes, peers, and the jobs that compare them."""
