package main

import (
	"cmp"
	"fmt"

	"github.com/castai/kops-spot/internal/onboard"
)

// exportInstall prints the commands that would do the same.
func (c *console) exportInstall(on *deploying, o installOptions) error {
	processor := map[string]string{"x86_64": "amd64"}[on.architecture] // as make dist names it
	script, err := on.runner.Export(cmp.Or(o.code, "dist/kops-spot-"+version+"-"+cmp.Or(processor, on.architecture)+".zip"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s\n%s", onboard.Export(on.access, on.ground), script)
	return err
}
