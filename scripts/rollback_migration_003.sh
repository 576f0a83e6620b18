#!/usr/bin/env bash
# Runs `make rollback-003` from any directory: back up the rows of revision 003 to backups/, then downgrade to 002.
set -euo pipefail

exec make --no-print-directory --directory "$(dirname "${BASH_SOURCE[0]}")/.." rollback-003
