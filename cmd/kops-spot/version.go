package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func versionCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "says which version this is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if c.output == asJSON {
				return c.json(map[string]string{"version": version})
			}
			_, err := fmt.Fprintln(c.stdout, version)
			return err
		},
	}
}
