package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/term"
)

func versionCommand(c *console) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return c.printResult(map[string]string{"version": version}, func(w io.Writer, _ term.Options) error {
				_, err := fmt.Fprintln(w, version)
				return err
			})
		},
	}
}
