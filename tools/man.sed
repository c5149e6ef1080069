# Makes a manual page in Markdown of docs/cli/README.md: its sections, and lists of terms for tables.
1a\
## NAME\
\
kops-spot - drain the nodes of kOps clusters when EC2 reclaims Spot instances\
\
## DESCRIPTION
/^<!--/d
/^\|---/d
/^\| (flag|command) /d
s/^\| \[(.*)\]\(#.*\) \| (.*) \|$/\1\n: \2\n/
s/^\| (`.*`) \|  \| (.*) \|$/\1\n: \2\n/
s/^\| (`.*`) \| `(.*)` \| (.*) \|$/\1\n: \3 (default: \2)\n/
/^    /!s/\[/\\[/g
