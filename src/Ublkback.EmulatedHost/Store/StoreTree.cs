using System.Collections.Immutable;

namespace Ublkback.EmulatedHost.Store;

/// <summary>One node, immutable: a change makes a new one, so two trees differ where their nodes do.</summary>
internal sealed record StoreNode(
    byte[] Value, ImmutableArray<StorePermission> Permissions, ImmutableSortedSet<string> Children)
{
    // Two nodes are the same only when they are one: that is how a transaction sees a change and change back.
    public bool Equals(StoreNode? other) => ReferenceEquals(this, other);

    public override int GetHashCode() => System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(this);
}

/// <summary>Who may do what: the first of a list is the owner with the default for all others.</summary>
internal readonly record struct StorePermission(char Access, int Domid)
{
    public bool CanRead => Access is 'r' or 'b';

    public bool CanWrite => Access is 'w' or 'b';
}

/// <summary>
/// The nodes as one connection sees them, in or outside a transaction: the tree at the start, what was looked at, and
/// what was changed.
/// </summary>
internal sealed class StoreTree(ImmutableDictionary<string, StoreNode> nodes, int domid)
{
    public static readonly ImmutableDictionary<string, StoreNode> Empty =
        ImmutableDictionary.Create<string, StoreNode>(StringComparer.Ordinal)
        .Add(
            "/",
            new StoreNode(
                [], [new StorePermission('n', 0)], ImmutableSortedSet.Create<string>(StringComparer.Ordinal)));

    private readonly ImmutableDictionary<string, StoreNode> _start = nodes;
    private readonly HashSet<string> _lookedAt = [];

    public ImmutableDictionary<string, StoreNode> Nodes { get; private set; } = nodes;

    /// <summary>Changed paths, in order; a removed one stands for all below it.</summary>
    public List<(string Path, bool IsRemoval)> Changes { get; } = [];

    public StoreNode Get(string path)
    {
        StoreNode node = Find(path) ?? throw new StoreException("ENOENT");
        return MayRead(node) ? node : throw new StoreException("EACCES");
    }

    public void Write(string path, byte[] value)
    {
        if (Find(path) is StoreNode node) Replace(path, node with { Value = value }, node);
        else MakeNode(path, value);
    }

    public void MakeDirectory(string path)
    {
        if (Find(path) is null) MakeNode(path, []);
    }

    public void Remove(string path)
    {
        if (path == "/") throw new StoreException("EINVAL");
        StoreNode? node = Find(path);
        string parentPath = ParentOf(path);
        StoreNode parent = Find(parentPath) ?? throw new StoreException("ENOENT");
        if (node is null) return; // as xenstored does: fine where the parent exists
        if (!MayWrite(parent) && !MayWrite(node)) throw new StoreException("EACCES");
        Nodes = Nodes.SetItem(parentPath, parent with { Children = parent.Children.Remove(NameOf(path)) });
        RemoveBelow(path, node);
        Changes.Add((path, true));
    }

    public void SetPermissions(string path, ImmutableArray<StorePermission> permissions)
    {
        StoreNode node = Find(path) ?? throw new StoreException("ENOENT");
        if (domid != 0 && node.Permissions[0].Domid != domid) throw new StoreException("EACCES");
        Replace(path, node with { Permissions = permissions }, node);
    }

    /// <summary>The tree with this one's changes in it, or null when another changed what this one looked at.</summary>
    public ImmutableDictionary<string, StoreNode>? MergeInto(ImmutableDictionary<string, StoreNode> current)
    {
        foreach (string path in _lookedAt)
        {
            if (_start.GetValueOrDefault(path) != current.GetValueOrDefault(path)) return null;
        }

        ImmutableDictionary<string, StoreNode>.Builder merged = current.ToBuilder();
        foreach (string path in _lookedAt)
        {
            if (Nodes.TryGetValue(path, out StoreNode? node)) merged[path] = node;
            else merged.Remove(path);
        }

        return merged.ToImmutable();
    }

    private static string ParentOf(string path) => path.LastIndexOf('/') is int slash and > 0 ? path[..slash] : "/";

    private static string NameOf(string path) => path[(path.LastIndexOf('/') + 1)..];

    private StoreNode? Find(string path)
    {
        _lookedAt.Add(path);
        return Nodes.GetValueOrDefault(path);
    }

    // Parents are made silently, as xenstored does.
    private void MakeNode(string path, byte[] value)
    {
        Make(path, value);
        Changes.Add((path, false));
    }

    private void Make(string path, byte[] value)
    {
        string parentPath = ParentOf(path);
        if (Find(parentPath) is null) Make(parentPath, []);
        StoreNode parent = Find(parentPath)!;
        if (!MayWrite(parent)) throw new StoreException("EACCES");
        // A new node has its parent's permissions; an unprivileged maker owns it.
        ImmutableArray<StorePermission> permissions = domid == 0
            ? parent.Permissions
            : parent.Permissions.SetItem(0, parent.Permissions[0] with { Domid = domid });
        Nodes = Nodes
            .SetItem(parentPath, parent with { Children = parent.Children.Add(NameOf(path)) })
            .SetItem(path, new StoreNode(value, permissions, parent.Children.Clear()));
        _lookedAt.Add(path);
    }

    private void Replace(string path, StoreNode node, StoreNode old)
    {
        if (!MayWrite(old)) throw new StoreException("EACCES");
        Nodes = Nodes.SetItem(path, node);
        Changes.Add((path, false));
    }

    private void RemoveBelow(string path, StoreNode node)
    {
        foreach (string child in node.Children)
        {
            string childPath = $"{path}/{child}";
            RemoveBelow(childPath, Find(childPath)!);
        }

        Nodes = Nodes.Remove(path);
    }

    private bool MayRead(StoreNode node) => May(node, permission => permission.CanRead);

    private bool MayWrite(StoreNode node) => May(node, permission => permission.CanWrite);

    private bool May(StoreNode node, Func<StorePermission, bool> allows)
    {
        if (domid == 0 || node.Permissions[0].Domid == domid) return true;
        foreach (StorePermission permission in node.Permissions.Skip(1))
        {
            if (permission.Domid == domid) return allows(permission);
        }

        return allows(node.Permissions[0]);
    }
}

/// <summary>A request that the store refuses, with the error's name on the wire.</summary>
internal sealed class StoreException(string error) : Exception(error);
