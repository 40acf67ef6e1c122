"""From a plan to finished stages: claiming, running, surviving, showing."""
