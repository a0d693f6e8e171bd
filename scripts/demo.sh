#!/bin/sh
# Demonstrates the main workflow locally: rename samples in bulk, list them, and undo the change.
# It can be run any number of times, and leaves the local deployment running.
set -eu

ROWS=1000
GROUP=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
began=$(date +%s)

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m')
else bold='' plain=''
fi

title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
run() { printf '$ aspencli %s\n' "$*" >&2; aspencli "$@"; }

title "1. Start a local deployment: PostgreSQL, AWS emulator, identity provider, API"
run local up

title "2. Add sample data"
have=$(aspencli groups show $GROUP --output jsonl 2>/dev/null | sed -n 's/.*"samples": *\([0-9]*\).*/\1/p')
if [ "${have:-0}" -lt $ROWS ]; then
    run local seed --samples $((ROWS - ${have:-0})) --group $GROUP --yes
else
    echo "Group $GROUP already has $have samples."
fi
run samples list --group $GROUP --limit 5 --output table

title "3. Create a mapping file for $ROWS samples; the first two swap identifiers"
aspencli samples list --group $GROUP --limit $ROWS --output tsv |
    awk -F '\t' 'BEGIN { print "private_identifier,public_identifier" }
        NR == 2 { lab = $2; public = $3 }
        NR == 3 { print lab "," $3; print $2 "," public }
        NR > 3  { printf "%s,hCoV-19/USA/CA-DEMO-%05d/2026\n", $2, NR - 1 }' > "$work/ids.csv"
head -n 5 "$work/ids.csv"
echo "..."

title "4. Preview the changes (dry run; nothing is written)"
run samples update-public-ids --group-id $GROUP \
    --private-to-public-id-mapping "$work/ids.csv" --dry-run --output table > "$work/plan.txt"
head -n 6 "$work/plan.txt"
echo "..."

title "5. Apply the mapping: one transaction, with an undo file saved before the commit"
run samples update-public-ids --group-id $GROUP \
    --private-to-public-id-mapping "$work/ids.csv" --yes \
    --undo-file "$work/undo.csv" --output table
run samples list --group $GROUP --limit 5 --output table

title "6. Apply it again: nothing to change"
run samples update-public-ids --group-id $GROUP \
    --private-to-public-id-mapping "$work/ids.csv" --yes --output table

title "7. A mapping file with errors is rejected, and every bad line is listed"
{ head -n 3 "$work/ids.csv"; echo "NO-SUCH-SAMPLE,hCoV-19/USA/X/2026"; sed -n 3p "$work/ids.csv"; } \
    > "$work/bad.csv"
run samples update-public-ids --group-id $GROUP \
    --private-to-public-id-mapping "$work/bad.csv" --yes || echo "(exit code $?)"

title "8. Undo the change"
run samples undo "$work/undo.csv" --yes --undo-file "$work/redo.csv" --output table
run samples list --group $GROUP --limit 5 --output table

title "9. Do the same through the API, signed in as a member of the group"
# aspencli auth login waits for a person to approve; here a script does that.
ASPEN_TOKEN=$(python "$(dirname "$0")/demo_token.py" member@example.org)
export ASPEN_TOKEN
run samples update-public-ids --group-id $GROUP --via api \
    --private-to-public-id-mapping "$work/ids.csv" --yes \
    --undo-file "$work/undo-api.csv" --output table
run samples list --via api --group $GROUP --limit 5 --output table
run samples undo "$work/undo-api.csv" --via api --yes --undo-file "$work/redo-api.csv" --output table
unset ASPEN_TOKEN

title "Done in $(($(date +%s) - began)) s. Next steps"
cat <<'EOF'
  . .venv/bin/activate            put `aspencli` on your PATH
  aspencli samples list           list samples; --output json, csv, ... for other programs
  aspencli db interact --profile  open a Python console that prints and times every query
  aspencli db psql                open psql on the same database
  aspencli --help                 list all commands
  aspencli auth login             sign in to the API, as member@example.org or another test user
  aspencli local down             stop the deployment; data is kept
EOF
