namespace Ublkback;

/// <summary>
/// Marks a type that every request passes: nothing in its files blocks, takes a lock or allocates for a request. A test
/// asks the compiler for such calls. A line, statement or member that no request passes says so in a comment,
/// <c>// off the path: why</c>; a result that is known to be there, <c>// completed: why</c>; a place where requests do
/// allocate, <c>// on the path: why</c>.
/// </summary>
[AttributeUsage(AttributeTargets.Class | AttributeTargets.Struct | AttributeTargets.Interface, Inherited = false)]
internal sealed class DataPathAttribute : Attribute;
