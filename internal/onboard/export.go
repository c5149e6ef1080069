package onboard

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/castai/kops-spot/internal/iamcloud"
)

// Export is the plan as a shell script: the documents, as files that it writes, and the aws and kubectl commands that do the
// same.
func Export(p Planned, g Ground) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "#!/usr/bin/env bash\n# The cluster %s in account %s, region %s: what kops-spot would do, as commands.\n"+
		"# Needs aws, kubectl and jq, logged in to both.\nset -euo pipefail\nexport AWS_REGION=%[3]s AWS_DEFAULT_REGION=%[3]s\n", g.Cluster, g.Account, g.Region)
	for _, s := range p.steps {
		for _, call := range s.calls {
			writeDocument(&b, call)
		}
	}
	for _, c := range p.Changes {
		if !c.Changes() {
			continue
		}
		fmt.Fprintf(&b, "\n# %s %s %s%s\n", c.Verb, c.Kind, c.Name, because(c.Why))
		for _, line := range c.Commands {
			b.WriteString(line + "\n")
		}
	}
	return b.Bytes()
}

func writeDocument(b *bytes.Buffer, call iamcloud.Call) {
	if file, text := call.Document(); file != "" {
		fmt.Fprintf(b, "\ncat >%s <<'EOF'\n%s\nEOF\n", file, strings.Join(lines(text), "\n"))
	}
}

func because(s string) string {
	if s == "" {
		return ""
	}
	return ": " + strings.ReplaceAll(s, "\n", " ")
}
