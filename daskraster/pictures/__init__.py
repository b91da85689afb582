"""What is looked at rather than read: quick looks, the plan, the seams, the run. Everything is drawn from a bounded number of pixels."""
