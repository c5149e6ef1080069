package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// pkg has the declarations of a package that a schema needs.
type pkg struct {
	root      string // of the schema
	recursive bool   // the root leads to itself
	types     map[string]*ast.TypeSpec
	docs      map[string]string  // of types
	consts    map[string][]value // string constants, by their type
}

type value struct{ text, doc string }

func parse(dir string) (*pkg, error) {
	p := &pkg{types: map[string]*ast.TypeSpec{}, docs: map[string]string{}, consts: map[string][]value{}}
	files, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil,
			parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("reading the types: %w", err)
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				p.add(g)
			}
		}
	}
	return p, nil
}

func (p *pkg) add(g *ast.GenDecl) {
	for _, spec := range g.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			p.types[s.Name.Name] = s
			p.docs[s.Name.Name] = text(s.Doc, g.Doc)
		case *ast.ValueSpec:
			of, ok := s.Type.(*ast.Ident)
			if g.Tok != token.CONST || !ok || len(s.Values) != 1 {
				continue
			}
			if lit, ok := s.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				p.consts[of.Name] = append(p.consts[of.Name],
					value{strings.Trim(lit.Value, "`\""), text(s.Doc, s.Comment)})
			}
		}
	}
}

// text is the first of the comments that says something, in one line.
func text(comments ...*ast.CommentGroup) string {
	for _, c := range comments {
		if t := strings.Join(strings.Fields(c.Text()), " "); t != "" {
			return t
		}
	}
	return ""
}
