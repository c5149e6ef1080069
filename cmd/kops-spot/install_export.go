package main

import (
	"cmp"
	"fmt"

	"github.com/castai/kops-spot/internal/onboard"
)

// exportInstall prints the commands that would do the same.
func (c *console) exportInstall(on *deploying, o installOptions) error {
	script, err := on.runner.Export(cmp.Or(o.code, "kops-spot-"+version+"-arm64.zip"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s\n%s", onboard.Export(on.access, on.ground), script)
	return err
}
