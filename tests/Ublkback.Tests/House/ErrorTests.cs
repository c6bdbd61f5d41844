using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;
using NUnit.Framework;

namespace Ublkback.Tests.House;

/// <summary>Rules for the exceptions that the program throws.</summary>
public sealed class ErrorTests
{
    private static readonly string[] Remedies =
    [
        "add", "attach", "check", "choose", "close", "compact", "convert", "correct", "create", "delete", "detach",
        "end", "enlarge", "free", "give", "install", "leave", "load", "look", "make", "name", "open", "put", "remove",
        "rename", "repair", "restart", "restore", "resume", "run", "say", "see", "send", "set", "shut", "start",
        "stop", "try", "update", "upgrade", "use", "wait", "write",
    ];

    private static readonly SyntaxTree[] Trees = Parse();
    private static readonly HashSet<string> UserErrors = FindUserErrors();

    [Test]
    public void An_exception_thrown_for_another_one_keeps_it_as_its_cause()
    {
        string[] faults =
        [
            .. from created in Thrown()
               let caught = created.Ancestors().OfType<CatchClauseSyntax>().FirstOrDefault()
               let name = caught?.Declaration?.Identifier.ValueText
               where !string.IsNullOrEmpty(name)
               where created.ArgumentList?.Arguments.Any(argument => argument.ToString() == name) != true
               select Where(created),
        ];
        Assert.That(faults, Is.Empty);
    }

    // The program, the control socket and the life of a disk show such errors; what is between leaves them alone.
    [Test]
    public void Commands_do_not_rethrow_user_errors_as_others()
    {
        string[] faults =
        [
            .. from created in Thrown()
               where created.SyntaxTree.FilePath.Contains("/src/Ublkback/", StringComparison.Ordinal)
               let caught = created.Ancestors().OfType<CatchClauseSyntax>().FirstOrDefault()
               let what = $"{caught?.Declaration?.Type} {caught?.Filter}"
               where UserErrors.Any(what.Contains)
               where created.ArgumentList?.Arguments[0].ToString() == $"{caught?.Declaration?.Identifier}.Message"
               select Where(created),
        ];
        Assert.That(faults, Is.Empty);
    }

    [Test]
    public void A_remedy_is_an_argument_of_its_own()
    {
        string[] faults =
        [
            .. from created in Thrown()
               where UserErrors.Contains(TypeOf(created))
               let problem = created.ArgumentList!.Arguments.Count > 0 ? Text(created.ArgumentList.Arguments[0]) : ""
               where Remedies.Any(verb => problem.Contains($": {verb} ", StringComparison.Ordinal)
                   || problem.Contains($"; {verb} ", StringComparison.Ordinal))
               select $"{Where(created)} {problem}",
        ];
        Assert.That(faults, Is.Empty);
    }

    private static SyntaxTree[] Parse() =>
    [
        .. Repository.SourceFiles("*.cs")
            .Select(file => CSharpSyntaxTree.ParseText(File.ReadAllText(file), path: file)),
    ];

    // UserException and all classes that derive from it.
    private static HashSet<string> FindUserErrors()
    {
        (string Name, string Base)[] classes =
        [
            .. from tree in Trees
               from declared in tree.GetRoot().DescendantNodes().OfType<ClassDeclarationSyntax>()
               let first = declared.BaseList?.Types[0].Type.ToString() ?? ""
               select (declared.Identifier.ValueText, first),
        ];
        HashSet<string> found = ["UserException"];
        int before;
        do
        {
            before = found.Count;
            found.UnionWith(classes.Where(one => found.Contains(one.Base)).Select(one => one.Name));
        }
        while (found.Count > before);
        return found;
    }

    private static IEnumerable<BaseObjectCreationExpressionSyntax> Thrown() =>
        from tree in Trees
        from created in tree.GetRoot().DescendantNodes().OfType<BaseObjectCreationExpressionSyntax>()
        where TypeOf(created).EndsWith("Exception", StringComparison.Ordinal)
        select created;

    // With "new(…)" the type is that of the method, the property or the variable.
    private static string TypeOf(BaseObjectCreationExpressionSyntax created) => created switch
    {
        ObjectCreationExpressionSyntax named => named.Type.ToString(),
        _ => created.Ancestors().Select(above => above switch
        {
            MethodDeclarationSyntax method => method.ReturnType.ToString(),
            PropertyDeclarationSyntax property => property.Type.ToString(),
            VariableDeclarationSyntax variable => variable.Type.ToString(),
            _ => null,
        }).FirstOrDefault(type => type is not null) ?? "",
    };

    // The literal parts of a message; a value is one space.
    private static string Text(ArgumentSyntax argument) =>
        string.Concat(argument.DescendantTokens().Select(token => token.Kind() switch
        {
            SyntaxKind.StringLiteralToken or SyntaxKind.InterpolatedStringTextToken => token.ValueText,
            SyntaxKind.OpenBraceToken => " ",
            _ => "",
        }));

    private static string Where(SyntaxNode node)
    {
        FileLinePositionSpan place = node.GetLocation().GetLineSpan();
        return $"{Path.GetRelativePath(Repository.Root, place.Path)}:{place.StartLinePosition.Line + 1}";
    }
}
