using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;
using Microsoft.CodeAnalysis.Text;

namespace Ublkback.Tests.House;

/// <summary>
/// Finds what blocks or allocates in one file, as the compiler sees it. Allowed are allocations in constructors and
/// initialisers, for an exception that is thrown, for a warning, and for a pool that has nothing free.
/// </summary>
/// <remarks>
/// A comment excuses its line, or the next one if it has a line of its own, and the statement or member that begins
/// there: <c>// off the path: why</c>, where no request passes in the steady state; <c>// completed: why</c>, where a
/// result is taken that is known to be there; <c>// on the path: why</c>, where requests do allocate. It must excuse
/// something.
/// </remarks>
internal sealed class DataPathSearch
{
    private const string OffPath = "// off the path: ", Completed = "// completed: ", OnPath = "// on the path: ";

    private readonly SemanticModel _model;
    private readonly SourceText _text;
    private readonly SyntaxNode _root;
    private readonly Dictionary<int, string> _excuses = [];
    private readonly HashSet<int> _used = [];
    private readonly List<string> _faults = [];

    public DataPathSearch(SemanticModel model)
    {
        _model = model;
        _text = model.SyntaxTree.GetText();
        _root = model.SyntaxTree.GetRoot();
        foreach (SyntaxTrivia comment in _root.DescendantTrivia())
        {
            if (!comment.IsKind(SyntaxKind.SingleLineCommentTrivia)) continue;
            string? excuse = ((string[])[OffPath, Completed, OnPath]).FirstOrDefault(
                start => comment.ToString() is var text && text.Length > start.Length
                    && text.StartsWith(start, StringComparison.Ordinal));
            TextLine line = _text.Lines.GetLineFromPosition(comment.SpanStart);
            TextSpan before = TextSpan.FromBounds(line.Start, comment.SpanStart);
            bool isAlone = string.IsNullOrWhiteSpace(_text.ToString(before));
            if (excuse is not null) _excuses.Add(line.LineNumber + (isAlone ? 1 : 0), excuse);
        }
    }

    /// <summary>Path of the file below the root of the tree.</summary>
    public string File => Path.GetRelativePath(Repository.Root, _model.SyntaxTree.FilePath);

    /// <summary>How many lines are excused, in the order of the three comments.</summary>
    public (int OffPath, int Completed, int OnPath) Excuses =>
        (Count(OffPath), Count(Completed), Count(OnPath));

    /// <summary>Paths of the files of the tree that declare a type, or a part of one, with the attribute.</summary>
    public static IEnumerable<string> FilesOfTree() => ModelsOfTree().Select(model => model.SyntaxTree.FilePath);

    public static IEnumerable<SemanticModel> ModelsOfTree() =>
        from compilation in SourceGraph.Tree.Compilations
        from tree in compilation.SyntaxTrees
        let model = compilation.GetSemanticModel(tree)
        where tree.GetRoot().DescendantNodes().OfType<TypeDeclarationSyntax>().Any(
            type => model.GetDeclaredSymbol(type)!.GetAttributes().Any(
                attribute => attribute.AttributeClass is { Name: "DataPathAttribute" }))
        select model;

    /// <summary>Lists the faults as line and reason, also each excuse that excuses nothing.</summary>
    public IReadOnlyList<string> FindFaults()
    {
        foreach (SyntaxNode node in _root.DescendantNodes(node => !IsNameof(node) && node is not AttributeListSyntax))
            Visit(node);
        foreach (int line in _excuses.Keys.Except(_used)) _faults.Add($"{line + 1}: an excuse for nothing");
        return _faults;
    }

    private static bool IsNameof(SyntaxNode node) =>
        node is InvocationExpressionSyntax { Expression: IdentifierNameSyntax { Identifier.Text: "nameof" } };

    private int Count(string excuse) => _excuses.Values.Count(value => value == excuse);

    private void Visit(SyntaxNode node)
    {
        switch (node)
        {
            case LockStatementSyntax:
                Report(node, "blocks: lock");
                break;
            case SimpleNameSyntax name:
                VisitName(name);
                break;
            case BaseObjectCreationExpressionSyntax or ConstructorInitializerSyntax:
                VisitCreation(node);
                break;
            case ArrayCreationExpressionSyntax or ImplicitArrayCreationExpressionSyntax:
                ReportAllocation(node, "new array");
                break;
            case AnonymousObjectCreationExpressionSyntax or QueryExpressionSyntax:
                ReportAllocation(node, node.Kind().ToString());
                break;
            case WithExpressionSyntax with when _model.GetTypeInfo(with).Type is { IsReferenceType: true }:
                ReportAllocation(node, "with");
                break;
            case CollectionExpressionSyntax collection when AllocatesFor(collection):
                ReportAllocation(node, "collection of a class");
                break;
            case InterpolatedStringExpressionSyntax
                or BinaryExpressionSyntax { RawKind: (int)SyntaxKind.AddExpression }
                or AssignmentExpressionSyntax { RawKind: (int)SyntaxKind.AddAssignmentExpression }
                when _model.GetTypeInfo(node).ConvertedType is { SpecialType: SpecialType.System_String }
                    && !_model.GetConstantValue(node).HasValue:
                ReportAllocation(node, "string");
                break;
            case AnonymousFunctionExpressionSyntax function:
                VisitAsync(node, _model.GetSymbolInfo(function).Symbol);
                break;
            case MethodDeclarationSyntax or LocalFunctionStatementSyntax:
                VisitAsync(node, _model.GetDeclaredSymbol(node));
                break;
        }
    }

    private void VisitName(SimpleNameSyntax name)
    {
        SymbolInfo info = _model.GetSymbolInfo(name);
        ISymbol? symbol = info.Symbol ?? info.CandidateSymbols.FirstOrDefault();
        if (symbol is IMethodSymbol { ReducedFrom: { } extension }) symbol = extension;
        if (symbol is null && name is { IsVar: false, Parent: not NameEqualsSyntax })
            _faults.Add($"{LineOf(name.SpanStart) + 1}: the compiler does not know {name}");
        if (symbol is not (IMethodSymbol or IPropertySymbol or IFieldSymbol or IEventSymbol)) return;
        symbol = symbol.OriginalDefinition;
        if (DataPathRules.Blocks(symbol)) Report(name, $"blocks: {DataPathRules.NameOf(symbol)}");
        else if (DataPathRules.Allocates(symbol)) ReportAllocation(name, DataPathRules.NameOf(symbol));
    }

    private void VisitCreation(SyntaxNode node)
    {
        if (_model.GetSymbolInfo(node).Symbol is not IMethodSymbol { ContainingType: { } type } constructor) return;
        if (node is BaseObjectCreationExpressionSyntax && DataPathRules.Blocks(constructor)
            && !IsAllowed(node))
            Report(node, $"blocks: new {DataPathRules.NameOf(type)}");
        else if (node is BaseObjectCreationExpressionSyntax && type.IsReferenceType)
            ReportAllocation(node, $"new {DataPathRules.NameOf(type)}");
    }

    // Only a builder that recycles keeps an async method from allocating when it waits.
    private void VisitAsync(SyntaxNode node, ISymbol? symbol)
    {
        if (symbol is IMethodSymbol { IsAsync: true } method && !method.GetAttributes().Any(
            attribute => attribute.AttributeClass is { Name: "AsyncMethodBuilderAttribute" }))
            ReportAllocation(node, "async without a builder that recycles");
    }

    // An empty array is one object for all, and a span lies on the stack.
    private bool AllocatesFor(CollectionExpressionSyntax collection) =>
        _model.GetTypeInfo(collection).ConvertedType is { IsReferenceType: true } type
        && (collection.Elements.Count > 0 || type.TypeKind == TypeKind.Class);

    private void ReportAllocation(SyntaxNode node, string what)
    {
        if (!IsAllowed(node)) Report(node, $"allocates: {what}", isAllocation: true);
    }

    private void Report(SyntaxNode node, string what, bool isAllocation = false)
    {
        bool isResult = node is SimpleNameSyntax { Identifier.Text: "GetResult" or "Result" };
        string? other = isResult ? Completed : isAllocation ? OnPath : null;
        int at = LineOf(node is MethodDeclarationSyntax method ? method.Identifier.SpanStart : node.SpanStart);
        if (!IsExcused(node, at, other)) _faults.Add($"{at + 1}: {what}");
    }

    private bool IsAllowed(SyntaxNode node)
    {
        for (SyntaxNode? at = node; at is not null and not BaseTypeDeclarationSyntax; at = at.Parent)
        {
            // The body of a lambda runs later than the constructor that creates it.
            if (at != node && at is AnonymousFunctionExpressionSyntax) return false;
            if (at is ConstructorDeclarationSyntax or PrimaryConstructorBaseTypeSyntax
                or ThrowStatementSyntax or ThrowExpressionSyntax)
                return true;
            if (at is EqualsValueClauseSyntax { Parent: { } declared }
                && declared is PropertyDeclarationSyntax
                    or VariableDeclaratorSyntax { Parent.Parent: FieldDeclarationSyntax })
                return true;
            if (at is ArgumentListSyntax { Parent: InvocationExpressionSyntax call } && IsWarning(call)) return true;
            if (at is ConditionalExpressionSyntax choice && IsEmptyPool(choice.Condition)) return true;
            if (at is IfStatementSyntax test && IsEmptyPool(test.Condition)) return true;
        }

        return false;
    }

    private bool IsWarning(InvocationExpressionSyntax call) =>
        _model.GetSymbolInfo(call).Symbol is IMethodSymbol { MethodKind: MethodKind.DelegateInvoke } invoke
        && invoke.ContainingType.ToDisplayString() == "System.Action<string>";

    private static bool IsEmptyPool(ExpressionSyntax condition) =>
        condition.DescendantNodes().OfType<SimpleNameSyntax>().Any(name => name.Identifier.Text == "TryPop");

    private bool IsExcused(SyntaxNode node, int line, string? other)
    {
        bool isExcused = Use(line, line, other);
        for (SyntaxNode? at = node; at is not null and not BaseTypeDeclarationSyntax && !isExcused; at = at.Parent)
        {
            (SyntaxNodeOrToken First, SyntaxNodeOrToken Last) header = at switch
            {
                LocalFunctionStatementSyntax local => (local.Identifier, local.ParameterList),
                MethodDeclarationSyntax method => (method.Identifier, method.ParameterList),
                StatementSyntax and not BlockSyntax or MemberDeclarationSyntax or AccessorDeclarationSyntax =>
                    (at.GetFirstToken(), at.GetFirstToken()),
                _ => default,
            };
            isExcused = header.First != default
                && Use(LineOf(header.First.SpanStart), LineOf(header.Last.Span.End), other);
        }

        return isExcused;
    }

    // The other comment is the one that fits what was found, beside the one that fits all.
    private bool Use(int first, int last, string? other)
    {
        for (int line = first; line <= last; line++)
        {
            if (!_excuses.TryGetValue(line, out string? excuse) || (excuse != OffPath && excuse != other)) continue;
            _used.Add(line);
            return true;
        }

        return false;
    }

    private int LineOf(int position) => _text.Lines.GetLineFromPosition(position).LineNumber;
}
