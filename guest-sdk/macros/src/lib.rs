//! The `#[handler]` attribute of `wasmeter-guest`. Use it through that crate.

use proc_macro::{Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// Makes a function the handler of this component.
///
/// The function takes one `Request` and returns anything that implements `IntoResponse`, mostly
/// `wasmeter_guest::Result<Response>`. A crate has exactly one handler.
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if let Some(first) = arguments.into_iter().next() {
        return error("#[handler] takes no arguments", first.span());
    }
    let name = match function_name(&item) {
        Ok(name) => name,
        Err((message, span)) => return error(message, span),
    };
    let export = format!(
        "const _: () = {{
            struct WasmeterHandler;
            impl ::wasmeter_guest::__private::Guest for WasmeterHandler {{
                fn handle(
                    request: ::wasmeter_guest::__private::IncomingRequest,
                    out: ::wasmeter_guest::__private::ResponseOutparam,
                ) {{
                    ::wasmeter_guest::__private::serve({name}, request, out)
                }}
            }}
            ::wasmeter_guest::__private::export!(WasmeterHandler with_types_in ::wasmeter_guest::raw);
        }};"
    );
    let mut output = item;
    match export.parse::<TokenStream>() {
        Ok(tokens) => output.extend(tokens),
        Err(_) => {
            return error("#[handler] cannot export a function of this name", Span::call_site());
        }
    }
    output
}

/// Finds the identifier after `fn` at the top level of the item.
fn function_name(item: &TokenStream) -> Result<String, (&'static str, Span)> {
    let mut tokens = item.clone().into_iter();
    let mut last = Span::call_site();
    while let Some(token) = tokens.next() {
        last = token.span();
        let TokenTree::Ident(word) = &token else {
            continue;
        };
        match word.to_string().as_str() {
            "async" => {
                return Err(("a handler is not async: calls to models and streams block", last));
            }
            "fn" => {
                if let Some(TokenTree::Ident(name)) = tokens.next() {
                    return Ok(name.to_string());
                }
            }
            "struct" | "enum" | "mod" | "impl" | "trait" => break,
            _ => {}
        }
    }
    Err(("#[handler] belongs on a function", last))
}

/// `::core::compile_error!(message)` at `span`.
fn error(message: &str, span: Span) -> TokenStream {
    let mut literal = Literal::string(message);
    literal.set_span(span);
    let mut bang = Punct::new('!', Spacing::Alone);
    bang.set_span(span);
    let argument = TokenStream::from(TokenTree::Literal(literal));
    let mut group = proc_macro::Group::new(proc_macro::Delimiter::Brace, argument);
    group.set_span(span);
    [TokenTree::Ident(Ident::new("compile_error", span)), TokenTree::Punct(bang), TokenTree::Group(group)]
        .into_iter()
        .collect()
}
