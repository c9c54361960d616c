//! Fence three: a stage takes the policy set apart without `..`, so a new slot fails to compile until every stage has
//! said what it does with it. The compiler does the work; these rules see that no stage goes around it.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::source::{Finding, Source, assert_finds, assert_none, library};

/// The type that holds a route's policy slots.
const POLICY_SET: &str = "Policies";
/// The field by which the stages reach it.
const POLICY_FIELD: &str = "policies";

#[derive(Default)]
struct Uses {
    taken_apart: usize,
    broken: Vec<(usize, String)>,
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_pat_struct(&mut self, pattern: &'ast syn::PatStruct) {
        if pattern.path.segments.last().is_some_and(|last| last.ident == POLICY_SET) {
            self.taken_apart += 1;
            if let Some(rest) = &pattern.rest {
                let sentence = format!(
                    "`..` hides the slots that this stage has not considered: name every one of `{POLICY_SET}`"
                );
                self.broken.push((rest.span().start().line, sentence));
            }
        }
        visit::visit_pat_struct(self, pattern);
    }

    fn visit_expr_field(&mut self, access: &'ast syn::ExprField) {
        let of_the_set = match &*access.base {
            syn::Expr::Field(base) => matches!(&base.member, syn::Member::Named(name) if name == POLICY_FIELD),
            syn::Expr::Path(base) => base.path.is_ident(POLICY_FIELD),
            _ => false,
        };
        if of_the_set {
            let sentence = format!("a stage reaches its slots by destructuring `{POLICY_SET}`, not one by one");
            self.broken.push((access.member.span().start().line, sentence));
        }
        visit::visit_expr_field(self, access);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }
}

/// What breaks fence three in a file of the pipeline, and how often it takes the policy set apart.
fn check(source: &Source) -> (Vec<Finding>, usize) {
    let mut uses = Uses::default();
    uses.visit_file(&source.syntax());
    let findings = uses.broken.into_iter().map(|(line, sentence)| source.finding(line, sentence)).collect();
    (findings, uses.taken_apart)
}

#[test]
fn stages_take_the_policy_set_apart_in_full() {
    let library = library();
    let stages: Vec<&Source> =
        library.iter().filter(|source| source.path.starts_with("src/pipeline/") && !source.is_test()).collect();
    let mut taken_apart = 0;
    let mut findings = Vec::new();
    for stage in &stages {
        let (found, times) = check(stage);
        findings.extend(found);
        taken_apart += times;
    }
    assert_none(&findings);
    assert!(stages.is_empty() || taken_apart > 0, "no stage destructures `{POLICY_SET}`: is that still its name?");
}

#[track_caller]
fn check_planted(text: &str, taken_apart: usize, expected: &[(usize, &str)]) {
    let (findings, times) = check(&Source::new("src/pipeline/admit.rs", text));
    assert_finds(&findings, expected);
    assert_eq!(times, taken_apart, "in {text}");
}

#[test]
fn a_rest_pattern_is_found() {
    check_planted("fn f(p: &Policies) {\n    let Policies { access, .. } = p;\n}", 1, &[(2, "`..` hides")]);
    check_planted("fn f(p: &P) {\n let crate::policy::Policies {\n cors,\n .. } = p;\n}", 1, &[(4, "`..` hides")]);
    check_planted("fn f(Policies { access, .. }: &Policies) {}", 1, &[(1, "`..` hides")]);
    check_planted("fn f(p: &Policies) { if let Policies { access: Some(a), .. } = p {} }", 1, &[(1, "`..` hides")]);
}

#[test]
fn a_slot_reached_by_its_name_is_found() {
    check_planted("fn f(route: &Route) {\n    route.policies.cors.decide();\n}", 0, &[(2, "by destructuring")]);
    check_planted("fn f(policies: &Policies) { g(&policies.cors) }", 0, &[(1, "by destructuring")]);
}

#[test]
fn a_full_destructuring_is_not() {
    check_planted("fn f(r: &Route) { let Policies { access, cors: _ } = &r.policies; }", 1, &[]);
    check_planted("fn f(o: &Other) { let Other { a, .. } = o; }", 0, &[]);
}
