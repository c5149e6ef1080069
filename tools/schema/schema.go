package main

import (
	"fmt"
	"go/ast"
	"reflect"
	"strings"
)

// node is a schema: of a type, of a field, or the whole.
type node struct {
	Schema      string           `json:"$schema,omitempty"`
	Title       string           `json:"title,omitempty"`
	Description string           `json:"description,omitempty"`
	Ref         string           `json:"$ref,omitempty"`
	Type        string           `json:"type,omitempty"`
	Format      string           `json:"format,omitempty"`
	Enum        []string         `json:"enum,omitempty"`
	Items       *node            `json:"items,omitempty"`
	Properties  map[string]*node `json:"properties,omitempty"`
	Values      *node            `json:"additionalProperties,omitempty"`
	Required    []string         `json:"required,omitempty"`
	Defs        map[string]*node `json:"$defs,omitempty"`
}

// schema is the schema of a struct type and of all that it leads to. Fields may be added within a version, so
// properties that it does not name are allowed.
func (p *pkg) schema(root string) (*node, error) {
	p.root = root
	defs := map[string]*node{}
	if err := p.define(root, defs); err != nil {
		return nil, err
	}
	whole := *defs[root]
	whole.Schema, whole.Title = "https://json-schema.org/draft/2020-12/schema", strings.ToLower(root)+" of kops-spot, version 1"
	if whole.Defs = defs; !p.recursive {
		delete(defs, root)
	}
	return &whole, nil
}

func (p *pkg) define(name string, defs map[string]*node) error {
	if defs[name] != nil {
		return nil
	}
	spec := p.types[name]
	if spec == nil {
		return fmt.Errorf("there is no type %s", name)
	}
	n := &node{Description: p.docs[name]}
	defs[name] = n
	switch t := spec.Type.(type) {
	case *ast.StructType:
		n.Type, n.Properties = "object", map[string]*node{}
		return p.fields(t, n, defs)
	case *ast.Ident:
		if err := basic(t.Name, n); err != nil {
			return fmt.Errorf("type %s: %w", name, err)
		}
		for _, v := range p.consts[name] {
			n.Enum = append(n.Enum, v.text)
			if v.doc != "" {
				n.Description += fmt.Sprintf(" %s: %s.", v.text, strings.TrimSuffix(v.doc, "."))
			}
		}
		return nil
	}
	return fmt.Errorf("type %s: there is no rule for a %T", name, spec.Type)
}

func (p *pkg) fields(t *ast.StructType, n *node, defs map[string]*node) error {
	for _, f := range t.Fields.List {
		if embedded, ok := f.Type.(*ast.Ident); ok && len(f.Names) == 0 { // its fields are the struct's own
			if err := p.fields(p.types[embedded.Name].Type.(*ast.StructType), n, defs); err != nil {
				return err
			}
		}
		if f.Tag == nil {
			continue // not in the JSON
		}
		name, options, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
		if name == "-" {
			continue
		}
		of, err := p.of(f.Type, defs)
		if err != nil {
			return fmt.Errorf("field %s: %w", name, err)
		}
		of.Description = text(f.Doc, f.Comment)
		n.Properties[name] = of
		if !strings.Contains(options, "omit") {
			n.Required = append(n.Required, name)
		}
	}
	return nil
}

// of is the schema of a field's type.
func (p *pkg) of(t ast.Expr, defs map[string]*node) (*node, error) {
	switch t := t.(type) {
	case *ast.StarExpr:
		return p.of(t.X, defs)
	case *ast.MapType: // the keys are strings
		values, err := p.of(t.Value, defs)
		return &node{Type: "object", Values: values}, err
	case *ast.ArrayType:
		items, err := p.of(t.Elt, defs)
		return &node{Type: "array", Items: items}, err
	case *ast.SelectorExpr:
		if x, ok := t.X.(*ast.Ident); ok && x.Name == "time" && t.Sel.Name == "Time" {
			return &node{Type: "string", Format: "date-time"}, nil
		}
	case *ast.Ident:
		p.recursive = p.recursive || t.Name == p.root
		if t.Name == "Outcome" && t.Name != p.root {
			return &node{Ref: "outcome.schema.json"}, nil
		}
		if p.types[t.Name] != nil {
			return &node{Ref: "#/$defs/" + t.Name}, p.define(t.Name, defs)
		}
		n := &node{}
		return n, basic(t.Name, n)
	}
	return nil, fmt.Errorf("there is no rule for a %T", t)
}

func basic(name string, n *node) error {
	switch name {
	case "string":
		n.Type = "string"
	case "bool":
		n.Type = "boolean"
	case "int":
		n.Type = "integer"
	case "float64":
		n.Type = "number"
	default:
		return fmt.Errorf("there is no rule for %s", name)
	}
	return nil
}
